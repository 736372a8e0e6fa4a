"""Run folders with known numbers, as runs leave them behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raptor.runs.migration import IDENTITY, VERSION
from raptor.utils.files import write_json

VERSIONS = {"raptor": "0", "torch": "0"}


def configure(folder: Path, task: str, seed: int, options: dict[str, Any] | None = None) -> None:
    """Write what a run computes: options by full name, paths of runs relative to their root."""
    folder.mkdir(parents=True)
    runs = str(folder.parent.parent)
    values = {"seed": seed, "task": task, **(options or {})}
    relative = {key: v.replace(runs, "<paths.runs>") if isinstance(v, str) else v for key, v in values.items()}
    write_json(folder / IDENTITY, {"version": VERSION, "command": "train", "values": relative})


def put(
    root: Path,
    name: str,
    task: str,
    model: dict[str, Any],
    metrics: dict[str, Any],
    seed: int = 0,
    options: dict[str, Any] | None = None,
    **more: object,
) -> None:
    """Write a finished run."""
    folder = root / name
    configure(folder, task, seed, options)
    result: dict[str, Any] = {"name": name, "task": task, "seed": seed, "model": model, "metrics": metrics}
    history = {"train/loss": [[0, 1.0], [10, 0.5]], "train/0-3/loss": [[0, 1.0], [10, 0.5]], "val/loss": [[10, 0.7]]}
    result |= {"seconds": 1.0, "attempts": 1, "versions": VERSIONS, "history": history, **more}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))


def put_unfinished(
    root: Path, name: str, task: str, seed: int, options: dict[str, Any] | None = None, **status: object
) -> None:
    """Write a run that has no result."""
    configure(root / name, task, seed, options)
    (root / name / "status.json").write_text(json.dumps(status))
