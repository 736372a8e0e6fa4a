"""Second moments of trajectories by layer: what linear operators, pooled ranks and baselines are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from torch import Tensor

from raptor.models.tokens import TokenLayout


class Moments:
    """Sums over all tokens of a type, for steps of depth x_l -> x_{l+1}.

    Parameters
    ----------
    layout
        Order of the tokens.
    kinds
        Token types to keep; each takes (2L + 1) D^2 float64 numbers.

    Attributes
    ----------
    gram, cross
        By type: for each layer 0..L the sum of x_l x_l^T, and for each step the sum of x_{l+1} x_l^T, ``(D, D)``.
    total
        By type: for each layer the sum of x_l, ``(D,)``.
    count
        By type: number of tokens.
    """

    def __init__(self, layout: TokenLayout, kinds: Sequence[str]) -> None:
        self.layout, self.kinds = layout, tuple(kinds)
        self.gram: dict[str, list[Tensor]] = {}
        self.cross: dict[str, list[Tensor]] = {}
        self.total: dict[str, list[Tensor]] = {}
        self.count = dict.fromkeys(kinds, 0)

    def update(self, points: Sequence[Tensor]) -> None:
        """Add a batch: layers 0..L, each ``(B, N, D)`` (directions, or vectors as they are)."""
        if not len(points[0]):
            return
        for kind in self.kinds:
            rows = [self.layout.select(x, kind).double().flatten(0, 1) for x in points]
            for store, values in (
                (self.gram, [x.T @ x for x in rows]),
                (self.cross, [later.T @ x for x, later in pairwise(rows)]),
                (self.total, [x.sum(dim=0) for x in rows]),
            ):
                if kind in store:
                    for held, value in zip(store[kind], values, strict=True):
                        held += value
                else:
                    store[kind] = values
            self.count[kind] += len(rows[0])

    def step(self, kind: str, layer: int) -> StepMoments:
        """Moments of the step from ``layer`` to the next."""
        gram, total = self.gram[kind], self.total[kind]
        return StepMoments(gram[layer], gram[layer + 1], self.cross[kind][layer], total[layer + 1], self.count[kind])

    def steps(self, kind: str, start: int, end: int) -> StepMoments:
        """Moments of all steps from layer ``start`` to ``end``, taken as samples of one map."""
        return reduce(add, [self.step(kind, layer) for layer in range(start, end)])


@dataclass
class StepMoments:
    """Moments of samples (x, x') of a map.

    Attributes
    ----------
    before, after, cross
        Sums of x x^T, x' x'^T and x' x^T, each ``(D, D)``.
    total_after
        Sum of x', ``(D,)``.
    count
        Number of samples.
    """

    before: Tensor
    after: Tensor
    cross: Tensor
    total_after: Tensor
    count: int

    def __add__(self, other: StepMoments) -> StepMoments:
        """Moments of the samples of both."""
        return StepMoments(
            self.before + other.before,
            self.after + other.after,
            self.cross + other.cross,
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
        own = [(u.double() * points[-1].double()).sum(dim=(0, 2)) for u in points]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._own = [a + b for a, b in zip(self._own, own, strict=True)] if self._own else own
        self.images += len(points[0])

    def compute(self) -> dict[str, Tensor]:
        """Mean cosine to the end of another image, by token type, ``(L+1,)``; NaN for a single image."""
        pairs = self.images * (self.images - 1)
        curves = [
            ((s * self._sums[-1]).sum(dim=-1) - own) / pairs if pairs else torch.full_like(own, torch.nan)
            for s, own in zip(self._sums, self._own, strict=True)
        ]
        return {
            kind: torch.stack([curve[self.layout.slice(kind)].mean() for curve in curves]).cpu()
            for kind in self.layout.types
        }
