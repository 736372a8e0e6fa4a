"""Measure how much faster tokens turn where a new phase begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Speeds = NDArray[np.float64]


def speed_jump(speed: Speeds, boundaries: Sequence[int]) -> Speeds | None:
    """Subtract the mean of the other steps from the mean step into a new phase.

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


def permutation_test(speed: Speeds, boundaries: Sequence[int], most: int = 10_000) -> float:
    """Test a jump against those of all contiguous partitions into as many phases.

    Parameters
    ----------
    speed, boundaries
        As for :func:`speed_jump`, which must be defined.
    most
        Where there are more partitions than this, so many are drawn at random (always the same).

    Returns
    -------
    float
        p: the share of partitions, this one among them, whose mean jump is at least as large.
    """
    mean, m = speed.mean(axis=0), len(boundaries)
    inner = range(1, speed.shape[1])
    if math.comb(len(inner), m) <= most:
        cuts = list(combinations(inner, m))
    else:
        rng = np.random.default_rng(0)
        cuts = [tuple(sorted(rng.choice(inner, m, replace=False).tolist())) for _ in range(most)]
    others = [cut for cut in cuts if cut != tuple(sorted(boundaries))]
    # the sum over boundaries orders partitions as the difference of means does
    larger = sum(mean[list(cut)].sum() >= mean[list(boundaries)].sum() - 1e-9 for cut in others)
    return float((1 + larger) / (1 + len(others)))
