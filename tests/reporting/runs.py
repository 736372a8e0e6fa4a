"""Run folders with known numbers, as runs leave them behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

VERSIONS = {"raptor": "0", "torch": "0"}


def configure(folder: Path, task: str, seed: int, options: dict[str, Any] | None = None) -> None:
    """Write the configuration of a run: options by full name."""
    folder.mkdir(parents=True)
    config = OmegaConf.create({"paths": {"runs": str(folder.parent.parent)}, "seed": seed, "task": {"name": task}})
    for key, value in (options or {}).items():
        OmegaConf.update(config, key, value, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))


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
