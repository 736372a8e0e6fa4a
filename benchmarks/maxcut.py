"""Time of the exact max-cut against brute force over all contiguous partitions, in the same run.

``python benchmarks/maxcut.py`` prints a table; machine facts go with it.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from math import comb

import numpy as np
from rich.console import Console
from rich.table import Table

from raptor.partition.maxcut import brute_force, exact


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median time of several calls."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Print one row for each size."""
    rng = np.random.default_rng(0)
    table = Table("layers", "k", "partitions", "exact (ms)", "brute force (ms)", "ratio")
    for L, k in ((12, 3), (12, 4), (24, 4), (48, 8), (96, 12)):
        D = np.triu(rng.random((L, L)), 1)
        D = D + D.T
        fast = median_seconds(lambda D=D, k=k: exact(D, k), 21)  # type: ignore[misc]
        partitions = comb(L - 1, k - 1)
        slow = median_seconds(lambda D=D, k=k: brute_force(D, k), 3) if partitions < 5000 else None  # type: ignore[misc]
        cells = ("", "") if slow is None else (f"{1e3 * slow:.1f}", f"{slow / fast:.0f}")
        table.add_row(str(L), str(k), f"{partitions:,}", f"{1e3 * fast:.3f}", *cells)
    console = Console()
    console.print(table)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}"
    )


if __name__ == "__main__":
    main()
