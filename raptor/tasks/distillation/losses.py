"""Distillation losses, each a config node."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout


class TokenLoss(Protocol):
    """What a distillation loss looks like."""

    def check(self, layout: TokenLayout, key: str) -> None:
        """Raise a ConfigError that names ``key`` if the layout lacks a token type that the loss needs."""

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Loss, a float32 scalar, of predictions ``(..., N, D)`` against the teacher's."""


class TokenMSE:
    """Mean squared error over all tokens alike."""

    def check(self, layout: TokenLayout, key: str) -> None:
        """Fits every layout."""

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Loss of predictions ``(..., N, D)``, computed in float32."""
        return F.mse_loss(pred.float(), target.float())


class WeightedTokenMSE:
    """Weighted sum of the mean squared errors of the token types.

    The paper's weights (cls, registers, patches) are 0.34/0.33/0.33 for the last phase of stage 1 and
    0.45/0.10/0.45 for stage 2.

    Parameters
    ----------
    cls, registers, patches
        Weight of each type; a type with weight 0 is left out.
    """

    def __init__(self, cls: float, registers: float, patches: float) -> None:
        self.weights = {"cls": cls, "registers": registers, "patches": patches}
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise ConfigError(f"loss weights {self.weights} must not be negative, and one must be above 0")

    def check(self, layout: TokenLayout, key: str) -> None:
        """Check that the layout has every type with a weight.

        Raises
        ------
        ConfigError
            Naming ``key``.
        """
        for kind, weight in self.weights.items():
            if weight > 0:
                layout.require([kind], f"{key}.{kind}={weight} (set it to 0 for this teacher): it")

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Loss of predictions ``(..., N, D)``, computed in float32."""
        # one weight per token instead of one loss per type: a third of the passes over the activations
        weights_N = pred.new_zeros(layout.num_tokens, dtype=torch.float32)
        for kind, weight in self.weights.items():
            if weight > 0:
                positions = layout.slice(kind)
                weights_N[positions] = (
                    weight / (positions.stop - positions.start) / self.scale(target[..., positions, :])
                )
        error_N = (pred.float() - target.float()).square().flatten(0, -3).mean(dim=(0, 2))
        return error_N @ weights_N

    def scale(self, target: Tensor) -> Tensor | float:
        """What the error of one token type is divided by, from the teacher's tokens ``(..., n, D)`` of that type."""
        return 1.0


class VarianceScaledMSE(WeightedTokenMSE):
    """As :class:`WeightedTokenMSE`, each type's error divided by the teacher's variance of that type in the batch.

    With the one scalar mean that :class:`~raptor.tasks.distillation.fidelity.Fidelity` takes, the loss of a layer is
    the weighted sum of 1 - R2, so that deep layers, whose variance is many times that of early ones, do not outweigh
    them.
    """

    def scale(self, target: Tensor) -> Tensor:
        """Variance over batch, tokens and channels about one mean."""
        return target.float().var(correction=0).clamp_min(1e-12)
