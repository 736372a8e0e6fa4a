"""Angular speed at phase boundaries: how much faster tokens turn where a new phase begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Speeds = NDArray[np.float64]


def speed_jump(speed: Speeds, boundaries: Sequence[int]) -> Speeds | None:
    """Mean step into a new phase minus the mean of the others.

    Parameters
    ----------
    speed
        Angles of steps ``(n, L)``; column l is the step from layer l to l + 1.
    boundaries
        Ends of phases, each within 1..L-1: the step from layer b leaves the phase that ends there.

    Returns
    -------
    ndarray of shape (n,), or None
        In the unit of ``speed``. None without boundaries, or where every step that could be one is one. The step from
        layer 0 counts on neither side, for no phase can end there.
    """
    steps = np.arange(speed.shape[1])
    at = np.isin(steps, boundaries)
    others = ~at & (steps > 0)
    if not at.any() or not others.any():
        return None
    return speed[:, at].mean(axis=1) - speed[:, others].mean(axis=1)


def share_of_partitions(speed: Speeds, boundaries: Sequence[int], most: int = 10_000) -> tuple[float, int]:
    """Share of contiguous partitions with as many phases whose jump is at least as large, this one included.

    Parameters
    ----------
    speed, boundaries
        As for :func:`speed_jump`, which must be defined.
    most
        Where there are more partitions than this, so many are drawn at random (always the same).

    Returns
    -------
    tuple of float and int
        The share, and how many partitions were compared.
    """
    mean, m = speed.mean(axis=0), len(boundaries)
    inner = range(1, speed.shape[1])
    if math.comb(len(inner), m) <= most:
        cuts = np.array(list(combinations(inner, m)))
    else:
        rng = np.random.default_rng(0)
        drawn = [np.sort(rng.choice(inner, m, replace=False)) for _ in range(most - 1)]
        cuts = np.array([sorted(boundaries), *drawn])
    own = mean[list(boundaries)].sum()  # the sum over boundaries orders partitions as the difference of means does
    return float((mean[cuts].sum(axis=1) >= own - 1e-9).mean()), len(cuts)
