"""All results of a study, read from the ``result.json`` of each run folder and from nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError
from raptor.results.run import RESULT, STATUS, read_json

log = logging.getLogger(__name__)
Run = dict[str, Any]


class Study:
    """The finished runs of a study.

    Parameters
    ----------
    root
        Folder of the study.

    Raises
    ------
    ConfigError
        If there is no finished run in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        folders = sorted(p.parent for p in root.glob(f"*/{STATUS}"))
        states = {folder.name: (read_json(folder / STATUS) or {}).get("state", "unreadable") for folder in folders}
        self.unfinished = {name: state for name, state in states.items() if state != "finished"}
        read = {name: read_json(root / name / RESULT) for name in states if name not in self.unfinished}
        self.runs: list[Run] = [result for result in read.values() if result is not None]
        if not self.runs:
            raise ConfigError(
                f"{root} holds no finished run: run the study first (for experiment=demo: make demo), or set "
                "experiment=... and paths.runs=..."
            )
        for name, state in self.unfinished.items():
            log.warning("%s is %s and left out", root / name, state)

    def of_task(self, task: str) -> list[Run]:
        """Runs of one task, in order of name."""
        return [run for run in self.runs if run["task"] == task]

    def surrogates(self) -> dict[int, list[Run]]:
        """Stage 2 runs by number of blocks."""
        return group(self.of_task("finetune"), lambda run: int(run["model"]["k"]))

    def probes(self) -> dict[str, list[Run]]:
        """Linear probes by what they probe."""
        return group(self.of_task("linear_probe"), lambda run: str(run["model"]["backbone"]["label"]))


def group(runs: list[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by a key, in order of it."""
    groups: dict[Any, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (key(run), run["name"])):
        groups.setdefault(key(run), []).append(run)
    return groups


def metric(runs: list[Run], name: str) -> list[float]:
    """One metric of each run that has it."""
    return [run["metrics"][name] for run in runs if run["metrics"].get(name) is not None]
