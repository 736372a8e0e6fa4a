"""Probe features by k nearest neighbours and ridge regression: no seed, schedule or learning rate.

Shapes: n images, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raptor.data.module import HELD_OUT_SHARE

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as is usual for self-supervised ViTs since DINO
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)
CHUNK = 2**14  # rows at a time
Pair = tuple[Tensor, Tensor]


def knn_top1(train: Pair, val: Pair, neighbours: int = NEIGHBOURS) -> float:
    """Compute the accuracy of a vote of nearest training features by cosine, weighted by exp(cosine / temperature).

    Parameters
    ----------
    train, val
        Features ``(n, F)`` and labels ``(n,)``.
    neighbours
        Number of voters.
    """
    classes, right = int(train[1].max()) + 1, 0
    bank = torch.nn.functional.normalize(train[0], dim=1)
    for x, y in zip(val[0].split(CHUNK // 16), val[1].split(CHUNK // 16), strict=True):
        x = torch.nn.functional.normalize(x, dim=1)
        best, labels = x.new_empty(len(x), 0), y.new_empty(len(x), 0)
        for part, part_labels in zip(bank.split(CHUNK), train[1].split(CHUNK), strict=True):
            # the nearest so far compete with those of the next rows, so that no whole distance matrix is held
            cosines = torch.cat([best, x @ part.T], dim=1)
            best, indices = cosines.topk(min(neighbours, cosines.shape[1]), dim=1)
            labels = torch.cat([labels, part_labels.expand(len(x), -1)], dim=1).gather(1, indices)
        votes = x.new_zeros(len(x), classes).scatter_add_(1, labels, (best / TEMPERATURE).exp())
        right += int((votes.argmax(1) == y).sum())
    return right / len(val[1])


class Moments:
    """Accumulate the sums that solve ridge regression on class indicators, in float64, by chunks of rows.

    Parameters
    ----------
    x
        Features ``(n, F)``.
    y
        Labels ``(n,)``.
    classes
        Number of classes.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int) -> None:
        self.n = len(y)
        self.x, self.y = x.new_zeros(x.shape[1], dtype=torch.float64), torch.bincount(y, minlength=classes).double()
        self.xx = self.x.new_zeros(x.shape[1], x.shape[1])
        self.xy = self.x.new_zeros(x.shape[1], classes)
        for rows, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            rows = rows.double()
            self.x += rows.sum(0)
            self.xx += rows.T @ rows
            self.xy.index_add_(1, labels, rows.T)

    def __add__(self, other: Moments) -> Moments:
        both = object.__new__(Moments)
        for name in vars(self):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """Solve for weights ``(F, classes)`` and offsets ``(classes,)``; the penalty is on standardised features."""
        mean_x, mean_y = self.x / self.n, self.y / self.n
        covariance = self.xx - self.n * torch.outer(mean_x, mean_x)
        scale = (covariance.diagonal() / self.n).clamp(min=0).sqrt()
        scale = scale.where(scale > 0, 1.0)
        system = covariance / torch.outer(scale, scale) + penalty * torch.eye(len(scale), dtype=scale.dtype)
        target = (self.xy - self.n * torch.outer(mean_x, mean_y)) / scale[:, None]
        weight = torch.linalg.solve(system, target) / scale[:, None]
        return weight, mean_y - mean_x @ weight


def ridge_top1(train: Pair, val: Pair) -> float:
    """Compute the accuracy of ridge regression on class indicators, in closed form on standardised features.

    Parameters
    ----------
    train, val
        Features ``(n, F)`` and labels ``(n,)``.
    """
    return _accuracy(ridge_fit(train), *val)


def ridge_fit(train: Pair) -> tuple[Tensor, Tensor]:
    """Fit ridge regression on class indicators: weights ``(F, classes)`` and offsets ``(classes,)``, in float64.

    The penalty is the best of :data:`PENALTIES` on a fixed tenth of the training features; the solution is
    then that of all of them.

    Parameters
    ----------
    train
        Features ``(n, F)`` and labels ``(n,)``.
    """
    x, y = train
    classes = int(y.max()) + 1
    held = torch.zeros(len(y), dtype=torch.bool)
    held[
        torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[: max(1, round(HELD_OUT_SHARE * len(y)))]
    ] = True
    selecting, rest = Moments(x[held], y[held], classes), Moments(x[~held], y[~held], classes)
    best = max(PENALTIES, key=lambda penalty: _accuracy(rest.solve(penalty), x[held], y[held]))
    return (selecting + rest).solve(best)


def _accuracy(solution: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> float:
    weight, offset = (part.float() for part in solution)
    return float(((x @ weight + offset).argmax(1) == y).float().mean())


CHECKS = {"knn": knn_top1, "ridge": ridge_top1}
