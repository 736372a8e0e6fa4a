"""Gather what ``phases.json`` holds: partitions, their quality, controls, null models and stability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from raptor.partition.maxcut import Matrix
from raptor.partition.nulls import run_null_tests
from raptor.partition.quality import solve_all
from raptor.partition.stability import stability


def find_phases(
    distance: Matrix,
    ks: Sequence[int],
    solver: str,
    eps: float | None = None,
    resampled: Iterable[Matrix] = (),
    draws: int = 999,
    seed: int = 0,
) -> dict[str, Any]:
    """Cut depth into phases, and gather the evidence for them.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    ks
        Numbers of phases; with ``eps`` they are not used.
    solver
        One of :data:`raptor.partition.maxcut.SOLVERS`.
    eps
        Let greedy bisection stop by itself.
    resampled
        Distance matrices over images drawn with replacement; none leaves stability out.
    draws
        Matrices drawn from each null model; 0 leaves the tests out.
    seed
        Seed of the draws.

    Returns
    -------
    dict
        :func:`~raptor.partition.quality.solve_all`; ``nulls``: :func:`~raptor.partition.nulls.run_null_tests`, or None;
        ``stability``: :func:`~raptor.partition.stability.stability` with the number of ``resamples``, or None.

    Raises
    ------
    ConfigError
        If a number does not fit.
    """
    phases = solve_all(distance, list(ks), solver, eps)
    matrices = list(resampled)
    found = {"resamples": len(matrices), **stability(matrices, phases["boundaries"], solver)} if matrices else None
    nulls = run_null_tests(distance, phases["boundaries"], solver, draws, seed) if draws else None
    return {**phases, "nulls": nulls, "stability": found}
