"""Rows, timing in turn, ceilings of the machine and facts about it: shared by all benchmarks."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.table import Table

from raptor.runs.provenance import code, versions
from raptor.training.hardware import bf16_units


@dataclass(frozen=True)
class Row:
    """One measurement against its baseline.

    Attributes
    ----------
    what
        What was measured.
    baseline
        What it is compared with, measured in the same run.
    ours, theirs
        Medians, in ``unit``.
    unit
        ``ms``, ``images/s``, ``MB``, ...
    gain
        How many times better than the baseline: above 1 is faster, smaller, more.
    note
        What else must be known to read the row.
    """

    what: str
    baseline: str
    ours: float
    theirs: float
    unit: str
    gain: float
    note: str = ""


@dataclass(frozen=True)
class Options:
    """Arguments of a benchmark.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    quick
        Small shapes and few repeats: shows that a benchmark works, its figures mean nothing.
    repeats
        Rounds of each comparison.
    """

    device: torch.device
    quick: bool = False
    repeats: int = 5

    @property
    def rounds(self) -> int:
        """Return the number of rounds that count."""
        return 1 if self.quick else self.repeats


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time one call, the device's queue included."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until the device's queue is empty."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(runs: Mapping[str, Callable[[], object]], options: Options, warm: int = 1) -> dict[str, list[float]]:
    """Time all calls in turn, so that a slow minute of a shared machine affects all of them.

    Parameters
    ----------
    runs
        What to time, by name.
    options
        Device and number of rounds.
    warm
        Calls of each that are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm + options.rounds):
        for name, run in runs.items():
            elapsed = seconds(run, options.device)
            if turn >= warm:
                times[name].append(elapsed)
    return times


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Raise an error within where the host waits for a GPU; elsewhere do nothing."""
    if device.type != "cuda":
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class StepTimes(pl.Callback):
    """Record the time of each step from the end of the previous one, waiting for data included."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Record the time."""
        synchronize(trainer.strategy.root_device)
        self._ends.append(time.perf_counter())

    def median(self, warm: int) -> float:
        """Return the median of the steps after the first ``warm`` ones."""
        return statistics.median(b - a for a, b in itertools.pairwise(self._ends[warm - 1 :]))


def faster(
    what: str, ours: str, theirs: str, times: Mapping[str, list[float]], *, scale: float = 1e3, note: str = ""
) -> Row:
    """Make a row of two entries of :func:`in_turn`, in ms; its gain is the median ratio."""
    gain = statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))
    a, b = (scale * statistics.median(times[name]) for name in (ours, theirs))
    return Row(what, theirs, a, b, "ms", gain, note)


def more(what: str, ours: str, theirs: str, times: Mapping[str, list[float]], count: int, note: str = "") -> Row:
    """Make a row as :func:`faster`, in images per second of calls of ``count`` images."""
    row = faster(what, ours, theirs, times, note=note)
    return Row(what, row.baseline, 1e3 * count / row.ours, 1e3 * count / row.theirs, "images/s", row.gain, note)


def matmul_ceiling(device: torch.device, dtype: torch.dtype, *, quick: bool = False) -> float:
    """Measure the FLOP/s of the fastest large matrix product: the ceiling of a step."""
    sides = [256] if quick else [2048, 3072] if device.type == "cpu" else [4096, 8192, 16384]
    best = 0.0
    for side in sides:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        for _ in range(4):
            best = max(best, 2 * side**3 / seconds(lambda a=a, b=b: a @ b, device))  # type: ignore[misc]
    return best


def copy_ceiling(device: torch.device, *, quick: bool = False) -> float:
    """Measure the bytes per second that a large copy reads and writes."""
    x = torch.empty((1 << 20) if quick else (1 << 28), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return max(2 * len(x) / seconds(lambda: y.copy_(x), device) for _ in range(5))


def ceilings(options: Options) -> dict[str, float]:
    """Measure what a step is compared with: FLOP/s of large products by type, bytes per second of a large copy."""
    return {
        "matmul_fp32": matmul_ceiling(options.device, torch.float32, quick=options.quick),
        "matmul_bf16": matmul_ceiling(options.device, torch.bfloat16, quick=options.quick),
        "copy_bytes": copy_ceiling(options.device, quick=options.quick),
    }


def quiet() -> None:
    """Silence what libraries warn about in trainings that are short on purpose."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)


def elsewhere(module: str, *arguments: str) -> Any:
    """Run ``python -m module`` in a process of its own and parse its last line as JSON."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def release(device: torch.device) -> None:
    """Release memory before the next measurement."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def facts(options: Options) -> dict[str, Any]:
    """Collect machine, versions and commit, to stand beside the figures."""
    cuda = options.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(options.device) if cuda else _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": ["tensor cores"] if cuda else bf16_units(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "commit": code()["commit"],
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "quick": options.quick,
    }


def _cpu() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def as_table(title: str, rows: list[Row]) -> Table:
    """Format rows as a table."""
    table = Table("what", "ours", "baseline", "unit", "gain", "against", "note", title=title, title_justify="left")
    for row in rows:
        cells = (
            f"{row.ours:,.4g}",
            f"{row.theirs:,.4g}",
            row.unit,
            f"{row.gain:,.0f}" if row.gain >= 100 else f"{row.gain:.2f}",
        )
        table.add_row(row.what, *cells, row.baseline, row.note)
    return table


def as_data(rows: list[Row]) -> list[dict[str, Any]]:
    """Format rows as JSON data."""
    return [asdict(row) for row in rows]


# in a process without torch, as the peak of a child is at least that of the process that starts it
CHILD = """
import json, resource, subprocess, sys, time
begin = time.perf_counter()
code = subprocess.run([sys.executable, "-m", *sys.argv[1:]], capture_output=True).returncode
elapsed, used = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": elapsed, "MB": used.ru_maxrss / 1024, "cpu": used.ru_utime + used.ru_stime, "code": code}))
"""


def within(limits: Mapping[str, float], what: str, *command: str, code: int = 0) -> list[Row]:
    """Compare a command, as a process, with what it may take.

    Parameters
    ----------
    limits
        By unit: ``seconds``, ``MB``.
    what
        What the rows are called.
    command
        Module and arguments.
    code
        Exit code that is expected.

    Raises
    ------
    RuntimeError
        If the command ends with another exit code.
    """
    done = subprocess.run([sys.executable, "-c", CHILD, *command], check=True, capture_output=True, text=True)
    used = json.loads(done.stdout)
    if used["code"] != code:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {used['code']}")
    note = f"{used['cpu']:.1f} s of computing"
    return [Row(what, "limit", used[unit], limit, unit, limit / used[unit], note) for unit, limit in limits.items()]
