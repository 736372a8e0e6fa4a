"""Stability of boundaries: which partitions come again when images are drawn anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from raptor.partition.maxcut import Matrix, solve
from raptor.partition.quality import quality

INTERVAL = (2.5, 97.5)  # percentiles


def stability(resampled: Iterable[Matrix], boundaries: dict[str, list[int]], solver: str) -> dict[str, Any]:
    """Solve every resampled distance matrix, and count what comes again.

    Parameters
    ----------
    resampled
        Distance matrices ``(L, L)`` over images drawn with replacement: a bootstrap over images.
    boundaries
        Partition of the whole sample for each number of phases.
    solver
        Solver that found them.

    Returns
    -------
    dict
        For each number of phases: ``same``, the share of resamples with this very partition; ``cuts``, for every layer
        after which any resample cuts, the share of those that do; ``contrast`` and ``share``, the 95 % percentile
        intervals of :func:`raptor.partition.quality.quality`, None where there is no such value.
    """
    matrices = list(resampled)
    return {k: _of_one(matrices, edges, solver) for k, edges in boundaries.items()}


def _of_one(matrices: list[Matrix], boundaries: list[int], solver: str) -> dict[str, Any]:
    partitions = [solve(distance, len(boundaries) + 1, solver) for distance in matrices]
    counts = Counter(edge for edges in partitions for edge in edges)
    measures = [quality(distance, edges) for distance, edges in zip(matrices, partitions, strict=True)]
    return {
        "same": float(np.mean([edges == boundaries for edges in partitions])),
        "cuts": {str(edge): counts[edge] / len(partitions) for edge in sorted(counts)},
        **{name: _interval([m[name] for m in measures]) for name in ("contrast", "share")},
    }


def _interval(values: list[float | None]) -> list[float] | None:
    present = [value for value in values if value is not None]
    return [float(value) for value in np.percentile(present, INTERVAL)] if present else None
