"""Exact max-cut against brute force over all contiguous partitions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import comb

import numpy as np

from benchmarks.measure import Options, Row, faster, in_turn
from raptor.partition.maxcut import brute_force, exact

SIZES = ((12, 3), (12, 4), (24, 4), (48, 8), (96, 12))  # layers, phases
TOO_MANY = 5000  # partitions that nobody waits for


def run(options: Options) -> list[Row]:
    """One row for each size; where brute force would take too long, its number of partitions is all that is said."""
    random, rows = np.random.default_rng(0), []
    for L, k in SIZES:
        D = np.triu(random.random((L, L)), 1)
        D = D + D.T
        partitions = comb(L - 1, k - 1)
        what, note = f"exact max-cut, L={L}, k={k}", f"{partitions:,} partitions"
        runs: dict[str, Callable[[], object]] = {"exact": functools.partial(exact, D, k)}
        if partitions < TOO_MANY:
            times = in_turn({**runs, "brute force": functools.partial(brute_force, D, k)}, options)
            rows.append(faster(what, "exact", "brute force", times, note=note))
        else:
            ours = 1e3 * min(in_turn(runs, options)["exact"])
            rows.append(Row(what, "none", ours, float("nan"), "ms", float("nan"), note))
    return rows
