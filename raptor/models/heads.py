"""Heads on frozen features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from raptor.errors import ModelFileError
from raptor.models.hub import HubModel
from raptor.models.weights import fill, read_tensors


class LinearProbe(nn.Module, HubModel):
    """Linear classifier on ``[cls, mean patch]`` of the final tokens.

    Parameters
    ----------
    num_features
        Width of the features: twice the backbone's width, or once where it has no class token.
    num_classes
        Number of classes.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of features ``(B, F)``."""
        return self.linear(features_BF)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.linear.out_features

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {"num_features": self.linear.in_features, "num_classes": self.linear.out_features}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LinearProbe:
        """Probe with random weights from :meth:`to_config`'s dictionary."""
        return cls(**config)


def read_linear(path: Path, where: str) -> LinearProbe:
    """A linear classifier from a file with ``weight`` ``(classes, features)`` and ``bias``, as Meta publishes them.

    Parameters
    ----------
    path
        ``.pth`` or ``.safetensors``; read without running anything.
    where
        How to name the file in errors.

    Raises
    ------
    ModelFileError
        If it holds anything else.
    """
    state = read_tensors(path, where)
    if state.keys() != {"weight", "bias"} or state["weight"].ndim != 2:
        raise ModelFileError(
            f"{where} holds {sorted(state)[:4]}, a linear head has weight (classes, features) and bias"
        )
    classes, features = state["weight"].shape
    probe = LinearProbe(features, classes)
    fill(probe.linear, state, where)
    return probe
