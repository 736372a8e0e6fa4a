"""Measure time and peak memory of ``raptor.report`` on a study of thousands of runs."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, Row, within
from raptor.runs.migration import IDENTITY, VERSION
from raptor.runs.status import STATUS

RUNS, QUICK = 2000, 40
LAYERS, POINTS = 12, 200
KINDS = ("cls", "registers", "patches")
MEASURES = ("r2", "cosine", "r2_centered", "cosine_centered")
LIMITS = {"seconds": 20.0, "MB": 600.0}  # what a report of so many runs may take


def write_study(root: Path, count: int) -> None:
    """Write run folders as trainings leave them: half surrogates of 16 configurations, half their probes."""
    draw = random.Random(0)
    for i in range(count // 2):
        k, lr, seed = 1 + i % 4, 10.0 ** -(1 + i // 4 % 4), i // 16
        name = f"surrogate-k{k}-lr{lr:g}-{seed}"
        options = {"seed": seed, "task": "finetune", "surrogate.k": k, "task.optimizer.lr": lr}
        metrics = {f"val/{measure}_{kind}": draw.random() for measure in MEASURES for kind in KINDS}
        curves = {measure: {kind: [draw.random()] * LAYERS for kind in KINDS} for measure in MEASURES}
        floors = dict.fromkeys(("mean", "layer_0", "phase_start", "affine"), curves["r2_centered"])
        about = {"layers": {"0-12": curves}, "floors": floors, "above_floor": dict.fromkeys(KINDS, 0.1)}
        write_run(root / name, options, {"k": k, "boundaries": list(range(1, k))}, metrics, about)
        probe = {"seed": seed, "task": "linear_probe", "task.backbone": f"<paths.runs>/{root.name}/{name}"}
        write_run(root / f"probe-{name}", probe, {"backbone": {"label": f"k={k}"}}, {"val/top1": draw.random()}, {})


def write_run(
    folder: Path, options: dict[str, Any], model: dict[str, Any], metrics: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write identity, status and result of one run, with a curve for each metric and the loss."""
    folder.mkdir(parents=True)
    curve = [[10 * i, 1.0 / (i + 1)] for i in range(POINTS)]
    result = {"name": folder.name, "task": options["task"], "seed": options["seed"], "model": model}
    result |= {"metrics": metrics, "seconds": 1.0, "attempts": 1, "versions": {"raptor": "0"}, **about}
    result["history"] = dict.fromkeys(["train/loss", *metrics], curve)
    files = {
        IDENTITY: {"version": VERSION, "command": "train", "values": options},
        STATUS: {"state": "finished", "updated": "2026-01-01T00:00:00+00:00"},
        "result.json": result,
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=1), encoding="utf-8")


def run(options: Options) -> list[Row]:
    """Compare a report, as a process, with what it may take."""
    count = QUICK if options.quick else RUNS
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "study", count)
        return within(LIMITS, f"raptor.report, {count:,} runs", "raptor.report", f"paths.runs={folder}", "study=study")
