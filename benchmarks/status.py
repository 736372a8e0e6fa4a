"""Measure time and peak memory of ``raptor.status`` on a study of ten thousand run folders."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, Row, within
from raptor.runs.status import LOCK, STATUS
from raptor.status import FAILED

RUNS, QUICK = 10_000, 100
LIMITS = {"seconds": 2.0, "MB": 200.0}  # what a table of so many runs may take
FINISHED = 80  # of a hundred; the others in equal shares
OTHERS = ("failed", "interrupted", "running", "queued")


def write_runs(root: Path, count: int) -> None:
    """Write run folders with locks that nobody holds, as trainings leave them that ended or were killed."""
    for i in range(count):
        left = i % 100 - FINISHED
        state = "finished" if left < 0 else OTHERS[left % len(OTHERS)]
        status: dict[str, Any] = {"state": state, "attempt": 1 + i % 3, "preempted": 0, "step": i, "total": count}
        status |= {"about": {"task": "finetune", "k": 1 + i % 4}, "host": "node", "pid": i, "package": "/code/raptor"}
        status |= {"started": "2026-01-01T00:00:00+00:00", "updated": "2026-01-01T01:00:00+00:00", "slurm": {}}
        status |= {"error": "NonFiniteError: loss"} if state == "failed" else {}
        folder = root / f"finetune-k{1 + i % 4}-seed{i}"
        folder.mkdir(parents=True)
        (folder / LOCK).touch()
        (folder / STATUS).write_text(json.dumps(status), encoding="utf-8")  # a sync for each would take minutes


def run(options: Options) -> list[Row]:
    """Compare a table of all runs, as a process, with what it may take."""
    count = QUICK if options.quick else RUNS
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder) / "study", count)
        command = ["raptor.status", f"{folder}/study"]
        return within(LIMITS, f"raptor.status, {count:,} folders", *command, code=FAILED)
