"""How good a partition of depth is, with random contiguous partitions as control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raptor.partition.maxcut import Matrix, cut_weight, random_boundaries
from raptor.partition.phases import label_layers


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
    labels = np.array(label_layers(boundaries, len(distance)))
    pairs = np.triu(np.ones_like(distance, dtype=bool), 1)
    same = labels[:, None] == labels[None, :]
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
