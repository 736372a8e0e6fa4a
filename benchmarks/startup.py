"""Measure the time until a command answers, and until the default job's first step."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Options, Row


def command_seconds(arguments: list[str]) -> float:
    """Time a whole command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def first_step_seconds() -> float:
    """Time the default job from its start to its first row of metrics, after one step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "raptor.train", f"paths.runs={folder}", "trainer.log_every_n_steps=1", "trainer.max_steps=1"]
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not any(
            "train/loss" in p.read_text(encoding="utf-8") for p in Path(folder).rglob("metrics.jsonl")
        ):
            time.sleep(0.02)
        elapsed = time.perf_counter() - begin
        if process.wait():
            raise RuntimeError("the default job failed")
        return elapsed


def run(options: Options) -> list[Row]:
    """Compare ``--cfg job`` and the first step with importing torch and Lightning alone."""
    times: dict[str, list[float]] = {"cfg": [], "step": [], "import": []}
    for turn in range(options.rounds + 1):
        found = {
            "cfg": command_seconds(["-m", "raptor.train", "--cfg", "job"]),
            "import": command_seconds(["-c", "import torch, timm, pytorch_lightning"]),
            "step": first_step_seconds(),
        }
        if turn:
            for name, value in found.items():
                times[name].append(value)
    bare = 1e3 * statistics.median(times["import"])
    rows = []
    for name, what in (("cfg", "raptor.train --cfg job"), ("step", "raptor.train, until after the first step")):
        ours = 1e3 * statistics.median(times[name])
        rows.append(Row(what, "importing torch, timm and Lightning", ours, bare, "ms", bare / ours))
    return rows
