"""Heads on frozen features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raptor.errors import ModelFileError
from raptor.models.checkpoints import read_tensors
from raptor.models.hub import HubModel
from raptor.models.weights import fill


class LinearProbe(nn.Module, HubModel):
    """Linear classifier of images, on ``[cls, mean patch]``, or of every patch, on its token.

    Parameters
    ----------
    num_features
        Width of the features; of ``[cls, mean patch]`` twice the backbone's width, or once where it has no
        class token.
    num_classes
        Number of classes.
    """

    kind: ClassVar[str] = "linear_probe"

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Logits ``(..., classes)`` of features ``(..., F)``."""
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


class DepthProbe(LinearProbe):
    """Linear classifier of every patch into depth bins, on ``[patch, cls]``.

    Parameters
    ----------
    num_features
        Twice the backbone's width, or once where it has no class token.
    num_classes
        Number of bins.
    nearest, farthest
        What the bins span evenly, in metres.
    """

    kind: ClassVar[str] = "depth_probe"

    def __init__(self, num_features: int, num_classes: int, nearest: float, farthest: float) -> None:
        super().__init__(num_features, num_classes)
        self.nearest, self.farthest = nearest, farthest

    def centres(self) -> Tensor:
        """Depth at the middle of each bin, in metres."""
        edges = torch.linspace(self.nearest, self.farthest, self.num_classes + 1, device=self.linear.weight.device)
        return (edges[1:] + edges[:-1]) / 2

    def depth(self, log_probabilities: Tensor) -> Tensor:
        """Return the expected depth in metres, from the log-softmax over bins: ``(..., bins)`` to ``(...)``."""
        with torch.autocast(log_probabilities.device.type, enabled=False):  # a product that it would round
            return log_probabilities.float().exp() @ self.centres()

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {**super().to_config(), "nearest": self.nearest, "farthest": self.farthest}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DepthProbe:
        """Probe with random weights from :meth:`to_config`'s dictionary."""
        return cls(**config)


def stacked(heads: Iterable[nn.Module], features: Tensor) -> Tensor:
    """Logits of K linear probes by one matrix product, in float32: ``(..., F)`` to ``(K, ..., classes)``."""
    linears = [cast(LinearProbe, head).linear for head in heads]
    weight, bias = (torch.cat([getattr(linear, name) for linear in linears]) for name in ("weight", "bias"))
    with torch.autocast(features.device.type, enabled=False):  # rounded logits tie, and ties go to the first class
        return F.linear(features.float(), weight, bias).unflatten(-1, (len(linears), -1)).movedim(-2, 0)


def read_linear(path: Path, where: str) -> LinearProbe:
    """Read a linear classifier: ``weight`` ``(classes, features)`` and ``bias``, as Meta publishes them.

    Parameters
    ----------
    path
        ``.pth`` or ``.safetensors``; read without running anything. Both names may have one prefix.
    where
        How to name the file in errors.

    Raises
    ------
    ModelFileError
        If it holds anything else.
    """
    if not path.is_file():
        raise ModelFileError(
            f"{where}: expected a file that exists, or the run folder of a linear probe. Fix: python "
            f"scripts/download_heads.py {path.parent} fetches Meta's heads."
        )
    tensors = read_tensors(path, where)
    prefix = next(iter(tensors)).rpartition(".")[0]  # such as module.linear, of a training script
    state = {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items()}
    if state.keys() != {"weight", "bias"} or state["weight"].ndim != 2:
        raise ModelFileError(
            f"{where}: expected a linear head, weight (classes, features) and bias (it holds "
            f"{', '.join(tensors)[:80]}). Fix: save the state_dict() of the linear layer."
        )
    classes, features = state["weight"].shape
    probe = LinearProbe(features, classes)
    fill(probe.linear, state, where)
    return probe
