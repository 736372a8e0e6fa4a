"""How good a partition of depth is, with random contiguous partitions as control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raptor.partition.maxcut import Matrix, cut_weight, equal_boundaries, greedy, random_boundaries, solve
from raptor.partition.phases import check_k, label_layers, phases_of


def quality(distance: Matrix, boundaries: Sequence[int]) -> dict[str, float | None]:
    """Measures of one partition.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    boundaries
        Boundaries of the partition.

    Returns
    -------
    dict
        ``cut``: summed distance across phases; ``share``: the same as a share of the total weight, 0..1;
        ``within`` and ``cross``: mean distance of two layers of one phase, of two phases; ``contrast``:
        (cross - within) / (cross + within), -1..1. None where there is no such pair.
    """
    return quality_of_labels(distance, label_layers(boundaries, len(distance)))


def quality_of_labels(distance: Matrix, labels: Sequence[int]) -> dict[str, float | None]:
    """:func:`quality` of a partition that need not be contiguous.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    labels
        Phase of each of the layers 1..L.
    """
    of = np.array(labels)
    pairs = np.triu(np.ones_like(distance, dtype=bool), 1)
    same = of[:, None] == of[None, :]
    inside, across = distance[pairs & same], distance[pairs & ~same]
    cut, total = float(across.sum()), float(distance[pairs].sum())
    within = float(inside.mean()) if inside.size else None
    cross = float(across.mean()) if across.size else None
    contrast = None
    if within is not None and cross is not None and within + cross > 0:
        contrast = (cross - within) / (cross + within)
    return {
        "cut": cut,
        "share": cut / total if total > 0 else None,
        "within": within,
        "cross": cross,
        "contrast": contrast,
    }


def mean_adjacent(distance: Matrix) -> float:
    """Mean distance of two layers that follow each other; NaN for a single layer."""
    adjacent = np.diagonal(distance, 1)
    return float(adjacent.mean()) if adjacent.size else float("nan")


def random_control(distance: Matrix, k: int, draws: int = 1000, seed: int = 0) -> dict[str, float]:
    """Share of the weight cut by random contiguous partitions into k phases.

    Returns
    -------
    dict
        ``draws``, and ``share_mean``, ``share_std``, ``share_max`` over them.
    """
    rng = np.random.default_rng(seed)
    total = float(np.triu(distance, 1).sum()) or 1.0
    shares = np.array([cut_weight(distance, random_boundaries(len(distance), k, rng)) for _ in range(draws)]) / total
    return {
        "draws": draws,
        "share_mean": float(shares.mean()),
        "share_std": float(shares.std(ddof=1)) if draws > 1 else 0.0,
        "share_max": float(shares.max()),
    }


def equal_control(distance: Matrix, k: int) -> dict[str, Any]:
    """Measure the partition into k phases of equal size; its ``boundaries``, and the keys of :func:`quality`."""
    boundaries = equal_boundaries(len(distance), k)
    return {"boundaries": boundaries, **quality(distance, boundaries)}


def solve_all(distance: Matrix, ks: list[int], solver: str, eps: float | None = None) -> dict[str, Any]:
    """Boundaries and measures for each number of phases: what ``phases.json`` holds.

    Parameters
    ----------
    distance
        ``(L, L)``.
    ks
        Numbers of phases; with ``eps`` they are not used.
    solver
        One of :data:`raptor.partition.maxcut.SOLVERS`.
    eps
        Let greedy bisection stop by itself.

    Raises
    ------
    ConfigError
        If a number does not fit.
    """
    L = len(distance)
    if eps is not None:
        partitions = [greedy(distance, eps=eps)]
    else:
        partitions = [solve(distance, check_k(k, L, "k"), solver) for k in ks]
    by_k = {str(len(boundaries) + 1): boundaries for boundaries in partitions}
    return {
        "num_layers": L,
        "solver": solver,
        "eps": eps,
        "boundaries": by_k,
        "phases": {k: [list(p) for p in phases_of(boundaries, L)] for k, boundaries in by_k.items()},
        "measures": {k: quality(distance, boundaries) for k, boundaries in by_k.items()},
        "equal": {k: equal_control(distance, int(k)) for k in by_k},
        "random": {k: random_control(distance, int(k)) for k in by_k},
    }
