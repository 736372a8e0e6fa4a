"""Second moments of trajectories by layer: what linear operators, pooled ranks and baselines are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import torch
from torch import Tensor

from raptor.models.tokens import TokenLayout


class Moments:
    """Sums over all tokens of a type, for pairs of layers x_l -> x_m, such as the steps of depth.

    Parameters
    ----------
    layout
        Order of the tokens.
    kinds
        Token types to keep; each takes a D x D matrix of float64 numbers for each layer and each pair.
    pairs
        Pairs of layers (l, m); None takes all steps (l, l + 1).

    Attributes
    ----------
    gram, total
        By type and layer, the sum of x_l x_l^T, ``(D, D)``, and that of x_l, ``(D,)``.
    cross
        By type and pair, the sum of x_m x_l^T, ``(D, D)``.
    count
        By type, the number of tokens.
    """

    def __init__(
        self, layout: TokenLayout, kinds: Sequence[str], pairs: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self.layout, self.kinds, self.pairs = layout, tuple(kinds), pairs
        self.gram: dict[str, dict[int, Tensor]] = {kind: {} for kind in kinds}
        self.total: dict[str, dict[int, Tensor]] = {kind: {} for kind in kinds}
        self.cross: dict[str, dict[tuple[int, int], Tensor]] = {kind: {} for kind in kinds}
        self.count = dict.fromkeys(kinds, 0)

    def update(self, points: Sequence[Tensor]) -> None:
        """Add a batch: layers 0..L, each ``(B, N, D)`` (directions, or vectors as they are)."""
        if not len(points[0]):
            return
        pairs = list(pairwise(range(len(points)))) if self.pairs is None else self.pairs
        for kind in self.kinds:
            rows = {
                layer: self.layout.select(points[layer], kind).double().flatten(0, 1)
                for layer in sorted({layer for pair in pairs for layer in pair})
            }
            for layer, x in rows.items():
                _add(self.gram[kind], layer, x.T @ x)
                _add(self.total[kind], layer, x.sum(dim=0))
            for first, last in pairs:
                _add(self.cross[kind], (first, last), rows[last].T @ rows[first])
            self.count[kind] += len(next(iter(rows.values())))

    def pair(self, kind: str, first: int, last: int) -> StepMoments:
        """Return the moments of a pair of layers."""
        gram, total = self.gram[kind], self.total[kind]
        cross = self.cross[kind][first, last]
        return StepMoments(gram[first], gram[last], cross, total[first], total[last], self.count[kind])

    def step(self, kind: str, layer: int) -> StepMoments:
        """Return the moments of the step from ``layer`` to the next."""
        return self.pair(kind, layer, layer + 1)

    def steps(self, kind: str, start: int, end: int) -> StepMoments:
        """Sum the moments of all steps from layer ``start`` to ``end``, taken as samples of one map."""
        return reduce(add, [self.step(kind, layer) for layer in range(start, end)])


def _add(sums: dict[Any, Tensor], key: Any, value: Tensor) -> None:
    if key in sums:
        sums[key] += value
    else:
        sums[key] = value


@dataclass
class StepMoments:
    """Moments of samples (x, x') of a map.

    Attributes
    ----------
    before, after, cross
        Sums of x x^T, x' x'^T and x' x^T, each ``(D, D)``.
    total_before, total_after
        Sums of x and x', each ``(D,)``.
    count
        Number of samples.
    """

    before: Tensor
    after: Tensor
    cross: Tensor
    total_before: Tensor
    total_after: Tensor
    count: int

    def __add__(self, other: StepMoments) -> StepMoments:
        """Join the samples of both."""
        return StepMoments(
            self.before + other.before,
            self.after + other.after,
            self.cross + other.cross,
            self.total_before + other.total_before,
            self.total_after + other.total_after,
            self.count + other.count,
        )

    @property
    def update_powers(self) -> Tensor:
        """Squared singular values ``(D,)`` of the matrix of all updates x' - x."""
        gram = self.after + self.before - self.cross - self.cross.T
        return torch.linalg.eigvalsh((gram + gram.T) / 2).clamp(min=0)


class OtherEnd:
    """Baseline of convergence: the end point of another image, averaged over all pairs of images.

    With S_l the sum of directions over n images at one position of the sequence, the mean of <x^_l(i), x^_L(j)> over
    i != j is (<S_l, S_L> - sum_i <x^_l(i), x^_L(i)>) / (n (n - 1)): no pair has to be formed.

    Parameters
    ----------
    layout
        Order of the tokens.
    """

    def __init__(self, layout: TokenLayout) -> None:
        self.layout, self.images = layout, 0
        self._sums: list[Tensor] = []
        self._own: list[Tensor] = []

    def update(self, points: Sequence[Tensor]) -> None:
        """Add a batch of directions: layers 0..L, each ``(B, N, D)``."""
        sums = [u.double().sum(dim=0) for u in points]
        products = [(u.double() * points[-1].double()).sum(dim=(0, 2)) for u in points]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._own = [a + b for a, b in zip(self._own, products, strict=True)] if self._own else products
        self.images += len(points[0])

    def compute(self) -> dict[str, Tensor]:
        """Mean cosine to the end of another image, by token type, ``(L+1,)``; NaN for a single image."""
        pairs = self.images * (self.images - 1)
        curves = [
            ((s * self._sums[-1]).sum(dim=-1) - products) / pairs if pairs else torch.full_like(products, torch.nan)
            for s, products in zip(self._sums, self._own, strict=True)
        ]
        return {
            kind: torch.stack([curve[self.layout.slice(kind)].mean() for curve in curves]).cpu()
            for kind in self.layout.types
        }
