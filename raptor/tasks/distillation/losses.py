"""Distillation losses, each a config node.

Shapes: B images, N tokens, D width.
"""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout

log = logging.getLogger(__name__)
SMALLEST = 1e-6  # variance that is divided by, in units of the mean square


class TokenLoss(Protocol):
    """Interface of a distillation loss."""

    def check(self, layout: TokenLayout, key: str) -> None:
        """Raise a ConfigError that names ``key`` if the loss cannot work with the token types of a layout."""

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Compute the loss, a float32 scalar, of predictions ``(..., N, D)`` against the teacher's."""


class TokenMSE:
    """Mean squared error over all tokens alike."""

    def check(self, layout: TokenLayout, key: str) -> None:
        """Accept every layout."""

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Compute the loss of predictions ``(..., N, D)``, in float32."""
        return F.mse_loss(pred.float(), target.float())


class WeightedTokenMSE:
    """Weighted sum of the mean squared errors of the token types.

    The paper's weights (cls, registers, patches) are 0.34/0.33/0.33 for the last phase of stage 1 and 0.45/0.10/0.45
    for stage 2. The weights of types that a teacher lacks are spread over the others in proportion to theirs.

    Parameters
    ----------
    cls, registers, patches
        Weight of each type; a type with weight 0 is left out.

    Raises
    ------
    ConfigError
        If a weight is negative, or all are 0.
    """

    def __init__(self, cls: float, registers: float, patches: float) -> None:
        self.weights = {"cls": cls, "registers": registers, "patches": patches}
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise ConfigError.of("loss weights", self.weights, "numbers >= 0, one of them > 0", "correct the weights")

    def weights_for(self, layout: TokenLayout) -> dict[str, float]:
        """Return the weights of the types that a layout has, those of the others spread over them."""
        present = {kind: self.weights[kind] for kind in layout.types if self.weights[kind] > 0}
        missing = sum(weight for kind, weight in self.weights.items() if kind not in layout.types)
        if not missing or not present:
            return present
        scale = sum(self.weights.values()) / sum(present.values())
        return {kind: weight * scale for kind, weight in present.items()}

    def check(self, layout: TokenLayout, key: str) -> None:
        """Check that a type with a weight is present, and log weights that are spread over others.

        Raises
        ------
        ConfigError
            Naming ``key``.
        """
        weights = self.weights_for(layout)
        missing = {kind: weight for kind, weight in self.weights.items() if weight > 0 and kind not in layout.types}
        if not weights:
            expected = f"a weight above 0 for a token type of this teacher: {', '.join(layout.types)}"
            raise ConfigError.of(key, self.weights, expected, f"set {key}.{layout.types[-1]}=1")
        if missing:
            log.info(
                "%s: this teacher has no %s tokens, so their weight %.4g is spread over the others: %s",
                key,
                " or ".join(missing),
                sum(missing.values()),
                ", ".join(f"{kind} {weight:.4g}" for kind, weight in weights.items()),
            )

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Compute the loss of predictions ``(..., N, D)``, in float32."""
        # one weight per token instead of one loss per type: a third of the passes over the activations
        weights_N = pred.new_zeros(layout.num_tokens, dtype=torch.float32)
        for kind, weight in self.weights_for(layout).items():
            positions = layout.slice(kind)
            weights_N[positions] = weight / (positions.stop - positions.start) / self.scale(target[..., positions, :])
        error_N = (pred.float() - target.float()).square().flatten(0, -3).mean(dim=(0, 2))
        return error_N @ weights_N

    def scale(self, target: Tensor) -> Tensor | float:
        """Return the divisor of the error of one token type, from the teacher's tokens ``(..., n, D)`` of that type."""
        return 1.0


class VarianceScaledMSE(WeightedTokenMSE):
    """As :class:`WeightedTokenMSE`, each type's error divided by the teacher's variance of that type in the batch.

    With the one scalar mean that :class:`~raptor.tasks.distillation.fidelity.Fidelity` takes, the loss of a layer is
    the weighted sum of 1 - R2, so that deep layers, whose variance is many times that of early ones, do not outweigh
    them.
    """

    def scale(self, target: Tensor) -> Tensor:
        """Compute the variance over batch, tokens and channels about one mean."""
        return target.float().var(correction=0).clamp_min(1e-12)


class CenteredMSE(WeightedTokenMSE):
    """As :class:`WeightedTokenMSE`, each type's error divided by the teacher's variance about its mean over images.

    The mean is taken for each token and channel, so that the loss of a layer estimates the weighted sum of
    1 - R2 centred (:class:`~raptor.tasks.distillation.fidelity.Fidelity`). Where offsets that all images share carry
    most of the energy, as in CLIP, one scalar mean would count them as variance, and hide the rest.

    Parameters
    ----------
    cls, registers, patches
        As in :class:`WeightedTokenMSE`.
    whitening
        Share of each channel's own variance in its divisor, 0 to 1; the rest is the mean over channels. With 1, a
        channel of small variance counts as much as one of large variance.
    """

    def __init__(self, cls: float, registers: float, patches: float, whitening: float = 0.0) -> None:
        super().__init__(cls, registers, patches)
        self.whitening = whitening

    def __call__(self, pred: Tensor, target: Tensor, layout: TokenLayout) -> Tensor:
        """Compute the loss of predictions ``(..., N, D)`` of at least two images, in float32."""
        total = pred.new_zeros((), dtype=torch.float32)
        for kind, weight in self.weights_for(layout).items():
            y, x = (layout.select(z, kind).float().flatten(0, -3) for z in (pred, target))
            variance_D = x.var(dim=0, correction=1).mean(dim=0)
            mean = variance_D.mean()
            divisor_D = self.whitening * variance_D + (1 - self.whitening) * mean
            least = SMALLEST * x.square().mean()  # of a type that hardly varies, such as a class token in layer 1
            total = total + weight * ((y - x).square() / divisor_D.clamp_min(least)).mean()
        return total
