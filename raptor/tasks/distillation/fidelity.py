"""Measure how well predicted layers match the teacher's, by layer and token type, streamed over batches.

Shapes: B images, n compared layers, N tokens, D width. Formulas: docs/measures.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from raptor.models.tokens import TokenLayout

Curves = dict[str, dict[str, list[float]]]  # measure -> token type -> one value for each layer
MEASURES = ("r2", "cosine", "r2_centered", "cosine_centered", "eps")
TINY = 1e-12  # share of the energy below which values count as constant: float32 activations carry no more
OFFICIAL_EPS = 1e-6  # of the published code


class Scores(NamedTuple):
    """Scores of predicted layers.

    Attributes
    ----------
    curves
        Every measure.
    official
        R2 as the published code computes it, by name.
    """

    curves: Curves
    official: dict[str, float]


class Comparison(NamedTuple):
    """Scores of predictions beside those of the best constant.

    Attributes
    ----------
    predictions
        Scores of the predictions.
    constant
        Scores of the mean over the evaluated images at each token and channel.
    """

    predictions: Scores
    constant: Scores


@dataclass(frozen=True)
class Sums:
    """Sums over images, in float64.

    Parameters
    ----------
    images
        Number of images.
    x, y
        Sums of the teacher's values and of the predictions, ``(n, N, D)``.
    xx, yy, residual
        Sums over images and channels of x^2, y^2 and (x - y)^2, ``(n, N)``.
    cosine
        Sums of the cosines between tokens, ``(n, N)``.
    """

    images: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    residual: Tensor
    cosine: Tensor

    def of(self, tokens: slice) -> Sums:
        """Select some tokens."""
        parts = {name: getattr(self, name)[:, tokens] for name in ("x", "y", "xx", "yy", "residual", "cosine")}
        return replace(self, **parts)

    def measures(self) -> dict[str, Tensor]:
        """Compute every measure over all tokens: ``(n,)`` each."""
        energy, residual, own = self.xx.sum(1), self.residual.sum(1), self.x.square().sum((1, 2)) / self.images
        values = self.images * self.x[0].numel()
        spread = energy - self.x.sum((1, 2)).square() / values
        shared = (self.x * self.y).sum((1, 2)) / self.images
        covariance = (energy + self.yy.sum(1) - residual) / 2 - shared
        spread_y = (self.yy.sum(1) - 2 * shared + own).clamp(min=0)
        norms = ((energy - own).clamp(min=0) * spread_y).sqrt()
        return {
            "r2": _explained(residual, spread, energy),
            "cosine": self.cosine.sum(1) / (self.images * self.cosine.shape[1]),
            "r2_centered": _explained(residual, energy - own, energy),
            "cosine_centered": torch.where(norms > TINY * energy, covariance / norms, 0 * covariance),
            "eps": (residual / energy.clamp(min=torch.finfo(energy.dtype).tiny)).sqrt(),
        }


def _explained(residual: Tensor, variation: Tensor, energy: Tensor) -> Tensor:
    """Return 1 - residual / variation; where the teacher does not vary, 1 for a perfect prediction and else 0."""
    perfect = (residual <= TINY * energy).double()
    r2 = torch.where(variation > TINY * energy, 1 - residual / variation, perfect)
    return torch.where((residual + energy).isfinite(), r2, torch.nan)


class Fidelity(Metric):
    """Compare n predicted layers with the teacher's, by token type.

    ``r2`` takes one scalar mean over images, tokens and channels, ``r2_centered`` the mean over images at each token
    and channel, so that a constant scores 0. ``cosine`` is the mean over tokens; ``cosine_centered`` is one cosine over
    all images, tokens and channels, after the teacher's mean is taken off both. ``eps`` is the root of the squared
    error over the root of the teacher's squared norm. The teacher is the reference throughout, but for the official
    variants, which have the prediction's variance in the denominator.

    All sums are in float64, which keeps every digit of float32 activations; they add up over processes.

    Parameters
    ----------
    layout
        Token layout.
    num_layers
        Number n of layers that are compared.
    width
        Channels D.
    """

    full_state_update = False
    images: Tensor
    x: Tensor
    y: Tensor
    unit: Tensor
    xx: Tensor
    yy: Tensor
    residual: Tensor
    cosine: Tensor
    start: Tensor

    def __init__(self, layout: TokenLayout, num_layers: int, width: int) -> None:
        super().__init__()
        self.layout, self.num_layers = layout, num_layers
        by_token = (num_layers, layout.num_tokens)
        shapes: dict[str, tuple[int, ...]] = {
            "images": (),
            **dict.fromkeys(("x", "y", "unit"), (*by_token, width)),
            **dict.fromkeys(("xx", "yy", "residual", "cosine"), by_token),
            "start": (2,),  # sums of the values and squares of the layer that a rollout starts from
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, preds: Sequence[Tensor], targets: Sequence[Tensor], start: Tensor | None = None) -> None:
        """Add a batch.

        Parameters
        ----------
        preds, targets
            n predicted layers and n layers of the teacher, each ``(B, N, D)``.
        start
            The teacher's layer that the predictions start from, ``(B, N, D)``, for the official variants.
        """
        self.images += len(preds[0])
        for i, (pred, target) in enumerate(zip(preds, targets, strict=True)):
            y, x = pred.double(), target.double()
            x_norm, y_norm = x.norm(dim=-1), y.norm(dim=-1)
            self.x[i] += x.sum(0)
            self.y[i] += y.sum(0)
            self.unit[i] += (x / x_norm.clamp(min=1e-8)[..., None]).sum(0)
            self.xx[i] += x_norm.square().sum(0)
            self.yy[i] += y_norm.square().sum(0)
            self.residual[i] += (x - y).square().sum((0, 2))
            self.cosine[i] += (torch.linalg.vecdot(x, y) / (x_norm * y_norm).clamp(min=1e-8)).sum(0)
        if start is not None:
            s = start.double()
            self.start += torch.stack([s.sum(), s.square().sum()])

    def compute(self) -> Comparison:
        """Compute all measures of the predictions, and of the best constant."""
        states = ("images", "x", "y", "xx", "yy", "residual", "cosine")
        sums = Sums(**{name: getattr(self, name) for name in states})
        mean_norm = self.x.norm(dim=-1)
        constant = replace(
            sums,
            y=self.x,
            yy=mean_norm.square() / self.images,
            residual=(self.xx - mean_norm.square() / self.images).clamp(min=0),
            cosine=(self.unit * self.x).sum(-1) / mean_norm.clamp(min=1e-8),
        )
        return Comparison(*(Scores(self._curves(s), self._official(s)) for s in (sums, constant)))

    def _curves(self, sums: Sums) -> Curves:
        curves: Curves = {measure: {} for measure in MEASURES}
        for kind in self.layout.types:
            for measure, values in sums.of(self.layout.slice(kind)).measures().items():
                curves[measure][kind] = values.tolist()
        return curves

    def _official(self, sums: Sums) -> dict[str, float]:
        """Compute 1 - mean((x - y)^2) / (mean((y - mean(y))^2) + 1e-6), over all tokens with one scalar mean."""
        values = float(self.images) * sums.x[0].numel()

        def r2(residual: Tensor, total: Tensor, squares: Tensor, layers: int) -> float:
            count = layers * values
            variance = squares / count - (total / count).square()
            return float(1 - residual / count / (variance + OFFICIAL_EPS))

        end = r2(sums.residual[-1].sum(), sums.y[-1].sum(), sums.yy[-1].sum(), 1)
        if not float(self.start[1]):
            return {"r2_official_end": end}
        total, squares = sums.y.sum() + self.start[0], sums.yy.sum() + self.start[1]
        pooled = r2(sums.residual.sum(), total, squares, self.num_layers + 1)
        return {"r2_official_pooled": pooled, "r2_official_end": end}


class StudentScores(nn.Module):
    """All scores of one student: fidelity, and top-1 through the teacher's head.

    Parameters
    ----------
    layout, num_layers, width
        As in :class:`Fidelity`.
    num_classes
        Outputs of the teacher's head; None where the labels are not its classes.
    """

    def __init__(self, layout: TokenLayout, num_layers: int, width: int, num_classes: int | None) -> None:
        super().__init__()
        self.fidelity = Fidelity(layout, num_layers, width)
        self.accuracy = MetricCollection(
            {name: MulticlassAccuracy(num_classes, average="micro") for name in ("top1", "agreement")}
            if num_classes
            else {},
            compute_groups=False,
        )

    def update_accuracy(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> None:
        """Add a batch of logits ``(B, classes)``: top-1, and agreement with the teacher's own prediction."""
        self.accuracy["top1"].update(logits, labels)
        self.accuracy["agreement"].update(logits, teacher_logits.argmax(dim=1))

    def compute(self) -> tuple[dict[str, Tensor], Scores]:
        """Compute accuracies and fidelity, and reset both."""
        accuracies = self.accuracy.compute() if len(self.accuracy) else {}
        comparison: Comparison = self.fidelity.compute()
        self.accuracy.reset()
        self.fidelity.reset()
        return accuracies, comparison.predictions
