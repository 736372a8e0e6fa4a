"""Compare exact max-cut with brute force over all contiguous partitions."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from math import comb

import numpy as np

from benchmarks.measure import Options, Row, faster, in_turn
from raptor.partition.maxcut import brute_force, exact

SIZES = ((12, 3), (12, 4), (24, 4), (48, 8), (96, 12))  # layers, phases
TOO_MANY = 5000  # partitions: too slow to enumerate


def run(options: Options) -> list[Row]:
    """Measure one row for each size."""
    random, rows, each = np.random.default_rng(0), [], 0.0
    for L, k in SIZES:
        D = np.triu(random.random((L, L)), 1)
        D = D + D.T
        partitions = comb(L - 1, k - 1)
        what, note = f"exact max-cut, L={L}, k={k}", f"{partitions:,} partitions"
        runs: dict[str, Callable[[], object]] = {"exact": functools.partial(exact, D, k)}
        if partitions < TOO_MANY:
            times = in_turn({**runs, "brute force": functools.partial(brute_force, D, k)}, options)
            rows.append(faster(what, "exact", "brute force", times, note=note))
            each = rows[-1].theirs / partitions
        else:
            ours = 1e3 * statistics.median(in_turn(runs, options)["exact"])
            theirs = each * partitions  # at the pace of the largest that was waited for
            rows.append(Row(what, "brute force, extrapolated", ours, theirs, "ms", theirs / ours, note))
    return rows
