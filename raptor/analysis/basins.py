"""Measure class-dependent angular basins: held-out images nearest to the mean direction of their class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.analysis.sphere import directions
from raptor.models.tokens import TokenLayout

TIE = 1e-9  # difference of two cosines that is rounding alone


def pooled_directions(layers: Sequence[Tensor], layout: TokenLayout) -> dict[str, Tensor]:
    """Compute the direction of each type's mean token: layers 0..L, ``(B, N, D)`` each, to ``(B, L+1, D)`` by type."""
    return {
        kind: torch.stack([directions(layout.pool(x.double(), kind)) for x in layers], dim=1) for kind in layout.types
    }


class ClassDirections:
    """Mean direction of each class at each layer, from images that are not evaluated.

    Parameters
    ----------
    num_classes
        Number of classes C.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, dtype=torch.long)
        self._sums: dict[str, Tensor] = {}

    def update(self, points: dict[str, Tensor], labels: Tensor) -> None:
        """Add unit vectors ``(B, L+1, D)`` by token type, and labels ``(B,)``."""
        self.counts += torch.bincount(labels.cpu(), minlength=self.num_classes)
        for kind, u in points.items():
            if kind not in self._sums:
                self._sums[kind] = u.new_zeros(self.num_classes, *u.shape[1:])
            self._sums[kind].index_add_(0, labels.to(u.device), u)

    @property
    def seen(self) -> Tensor:
        """Whether there was an image of a class, ``(C,)``."""
        return self.counts > 0

    def chance(self, labels: Tensor) -> float:
        """Compute the share of labels ``(n,)`` that a random answer, or always the same one, gets right."""
        largest = torch.bincount(labels.cpu()).max() / max(1, len(labels)) if len(labels) else 0.0
        return max(float(largest), 1.0 / max(1, int(self.seen.sum())))

    def compute(self) -> dict[str, Tensor]:
        """Compute unit vectors ``(C, L+1, D)`` by token type; zero for a class that was not seen."""
        return {kind: directions(total) for kind, total in self._sums.items()}


def evaluate_basins(points: Tensor, means: Tensor, labels: Tensor, seen: Tensor) -> dict[str, Tensor]:
    """Find the nearest class direction of each image at each layer.

    Parameters
    ----------
    points
        Unit vectors ``(B, L+1, D)`` of one token type.
    means
        Class directions ``(C, L+1, D)``.
    labels
        ``(B,)``.
    seen
        Which classes have a direction, ``(C,)``; the others cannot be chosen.

    Returns
    -------
    dict
        ``own``: 1 where the nearest class direction of the same layer is that of the image's class, else 0; ``final``:
        the same with the class directions of the last layer; ``class_mean``: cosine to the final direction of its own
        class. Each ``(B, L+1)`` in float64 on the CPU. Where n classes are equally near, as all are at layer 0
        to the class token, each counts 1/n: what choosing among them at random would get right.
    """
    unseen = ~seen.to(points.device)
    same = torch.einsum("bld,cld->blc", points, means)
    last = torch.einsum("bld,cd->blc", points, means[:, -1])
    true_class = labels.to(points.device)[:, None, None].expand(-1, last.shape[1], 1)
    result = {}
    for name, cosines in (("own", same), ("final", last)):
        possible = cosines.masked_fill(unseen, -torch.inf)
        nearest = (possible >= possible.amax(dim=-1, keepdim=True) - TIE).double()
        result[name] = (nearest.gather(2, true_class)[..., 0] / nearest.sum(dim=-1)).cpu()
    return result | {"class_mean": last.gather(2, true_class)[..., 0].cpu()}
