"""All results of a study, read from the ``result.json`` of each run folder and from nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError
from raptor.runs.folder import RESULT
from raptor.runs.identity import STATUS
from raptor.utils.files import read_json

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
        statuses = {folder.name: read_json(folder / STATUS) or {} for folder in folders}
        states = {n: s.get("state", "unreadable") for n, s in statuses.items() if s.get("has_result", True)}
        results = {name: read_json(root / name / RESULT) for name, state in states.items() if state == "finished"}
        self.runs: list[Run] = [result for result in results.values() if result is not None]
        self.unfinished = {name: state for name, state in states.items() if state != "finished"}
        self.unfinished |= {name: "without a readable result" for name, result in results.items() if result is None}
        if not self.runs:
            raise ConfigError(
                f"{root} holds no finished run: run the study first (make demo, make mini, "
                "scripts/reproduce_table1.sh), or set experiment=... and paths.runs=..."
            )
        for name, state in self.unfinished.items():
            log.warning("%s is %s and left out", root / name, state)

    def of_task(self, task: str) -> list[Run]:
        """Runs of one task, in order of name."""
        return [run for run in self.runs if run["task"] == task]

    def surrogates(self) -> dict[str, list[Run]]:
        """Stage 2 runs by what they are: ``k=2``, or ``k=2 (cut after 5)`` where one k was cut in several ways."""
        return group(self.of_task("finetune"), lambda run: self._label(run["model"]))

    def probes(self) -> dict[str, list[Run]]:
        """Linear probes by what they probe; surrogates as :meth:`surrogates` names them."""
        return group(self.of_task("linear_probe"), lambda run: self._label(run["model"]))

    def _label(self, model: dict[str, Any]) -> str:
        if "k" not in model:
            return str(model["backbone"]["label"])
        cuts = {tuple(run["model"]["boundaries"]) for run in self.runs if run["model"].get("k") == model["k"]}
        cut = ", ".join(map(str, model["boundaries"])) or "nowhere"
        return f"k={model['k']}" + (f" (cut after {cut})" if len(cuts) > 1 else "")

    @property
    def data(self) -> str:
        """The data of all runs, in words."""
        sets = {tuple(run["data"][key] for key in ("name", "train", "val")) for run in self.runs if "data" in run}
        names = [f"{name} ({train} to train, {val} to validate)" for name, train, val in sorted(sets)]
        skipped = {reason for run in self.runs for reason in run.get("data", {}).get("skipped", [])}
        left_out = f" {len(skipped)} unusable files were left out." if skipped else ""
        return f"Data: {', '.join(names)}.{left_out}" if names else ""


def group(runs: list[Run], key: Callable[[Run], Any]) -> dict[Any, list[Run]]:
    """Runs by a key, in order of k and key."""
    groups: dict[Any, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run["model"].get("k", 0), key(run), run["name"])):
        groups.setdefault(key(run), []).append(run)
    return groups


def metric(runs: list[Run], name: str) -> list[float]:
    """One metric of each run that has it."""
    return [run["metrics"][name] for run in runs if run["metrics"].get(name) is not None]
