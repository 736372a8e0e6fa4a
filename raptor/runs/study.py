"""All results of a study, read from the files of its run folders and from nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raptor.errors import ConfigError
from raptor.runs.folder import RESULT
from raptor.runs.groups import Configuration, Configurations, Record, RunGroup, group_records
from raptor.runs.labels import label_groups
from raptor.runs.migration import read_options
from raptor.runs.status import STATUS
from raptor.utils.files import read_json

log = logging.getLogger(__name__)
Run = dict[str, Any]
FINISHED, UNREADABLE = "finished", "unreadable"
KINDS = {"name": str, "task": str, "model": dict, "metrics": dict}  # what every result has


class Study:
    """The runs of a study.

    Parameters
    ----------
    root
        Folder of the study.

    Attributes
    ----------
    records
        All run folders in order of name, finished or not.
    runs
        Results of the finished ones.
    unfinished
        State of the others by name.

    Raises
    ------
    ConfigError
        If there is no finished run in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configurations = Configurations(root.parent, read_options)
        self.records = list(self._read_all())
        self.runs: list[Run] = [record.result for record in self.records if record.result is not None]
        self.unfinished = {record.name: record.state for record in self.records if record.result is None}
        if not self.runs:
            raise no_finished_run(root, self.unfinished)
        for name, state in self.unfinished.items():
            log.warning("%s is %s: the report has no numbers of it", root / name, state)

    def _read_all(self) -> Iterator[Record]:
        for folder in run_folders(self.root):
            record = read_record(folder, self.configurations)
            if record is not None:
                yield record

    def of_task(self, task: str) -> list[Run]:
        """Return the finished runs of one task, in order of name."""
        return [run for run in self.runs if run["task"] == task]

    def groups(self, task: str) -> list[RunGroup]:
        """Put together the runs of one task that differ only in their seeds, labelled and in order of k and label."""
        groups = group_records([record for record in self.records if record.task == task])
        label_groups(groups, self._base)
        return sorted(groups, key=lambda group: (_k(group) or 0, group.label))

    def surrogates(self) -> list[RunGroup]:
        """Return the groups of stage 2, labelled ``k=2``, or ``k=2, loss ...`` where several have this k.

        Rivals, which stand in the place of a surrogate, are labelled ``k=2, untied``.
        """
        return self.groups("finetune")

    def probes(self) -> list[RunGroup]:
        """Return the groups of linear probes, labelled by what they probe."""
        return self.groups("linear_probe")

    def backbone_of(self, probe: RunGroup) -> str | None:
        """Return the group of the run that a probe reads its tokens from, None where that is no run."""
        configuration = probe.records[0].configuration
        for key in ("task.backbone", "teacher.weights"):
            folder = configuration.built_on.get(key) if configuration else None
            if folder is not None:
                backbone = self.configurations.of(folder)
                return backbone.group if backbone else None
        return None

    def _base(self, group: RunGroup) -> str:
        """Name what a group is, apart from how it was trained."""
        k = _k(group)
        if k is not None:
            rivals = [f", {run['model']['rival']}" for run in group.runs if run["model"].get("rival")]
            return f"k={k}" + (rivals[0] if rivals else "")
        for run in group.runs:
            backbone = run["model"].get("backbone")
            if isinstance(backbone, dict) and "label" in backbone:
                return str(backbone["label"])
        configuration = group.records[0].configuration
        folder = configuration.built_on.get("task.backbone") if configuration else None
        k = _k_of(self.configurations.of(folder)) if folder else None
        task = group.records[0].task
        return f"k={k}" if k is not None else "teacher" if task == "classifier" else task

    @property
    def data(self) -> str:
        """The data of all runs, in words."""
        known = [run["data"] for run in self.runs if isinstance(run.get("data"), dict)]
        sets = {tuple(data.get(key) for key in ("name", "train", "val")) for data in known}
        names = [f"{name} ({train} to train, {val} to validate)" for name, train, val in sorted(sets, key=str)]
        skipped = {reason for data in known for reason in data.get("skipped", [])}
        left_out = f" {len(skipped)} unusable files were left out." if skipped else ""
        return f"Data: {', '.join(names)}.{left_out}" if names else ""


def no_finished_run(root: Path, unfinished: dict[str, str]) -> ConfigError:
    """Build the error for a study without numbers."""
    states = list(unfinished.values())
    there = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no run"
    fix = f"run its jobs first (python -m raptor.status {root} shows how they do), or set study=... and paths.runs=..."
    return ConfigError.of("study", root.name, f"a study with a finished run, {root} has {there}", fix)


def run_folders(root: Path) -> list[Path]:
    """Return the folders of a study, in order of name; none where it does not exist or cannot be listed."""
    try:
        with os.scandir(root) as entries:
            return [root / name for name in sorted(entry.name for entry in entries if _is_folder(entry))]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.warning("%s cannot be listed: %s", root, error.strerror)
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def read_record(folder: Path, configurations: Configurations) -> Record | None:
    """Read one run folder; None where a folder holds no run, or one that makes no result such as a report."""
    try:
        status = read_json(folder / STATUS)
        if status is None:
            return None if not (folder / STATUS).exists() else Record(folder.name, UNREADABLE, f"{STATUS} is damaged")
        if not status.get("has_result", True):
            return None
        state = str(status.get("state", UNREADABLE))
        configuration = configurations.of(folder)
        if state != FINISHED:
            return Record(folder.name, state, str(status.get("error", "")), None, configuration)
        result = read_json(folder / RESULT)
    except OSError as error:
        return Record(folder.name, UNREADABLE, error.strerror or str(error))
    if result is not None:
        result.setdefault("metrics", {})  # dynamics has none
    if result is None or any(not isinstance(result.get(key), kind) for key, kind in KINDS.items()):
        return Record(folder.name, UNREADABLE, f"{RESULT} is damaged", None, configuration)
    return Record(folder.name, FINISHED, "", compact(result), configuration)


def compact(result: Run) -> Run:
    """Return a result with its curves as arrays ``(points, 2)``, which take a tenth of the memory."""
    history = result.get("history")
    if isinstance(history, dict):
        result["history"] = {name: curve for name, points in history.items() if (curve := _curve(points)) is not None}
    return result


def _curve(points: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    try:
        curve = np.array(points, dtype=float)  # None, written for NaN, becomes NaN again
    except (TypeError, ValueError):
        return None
    return curve if curve.ndim == 2 and curve.shape[1] == 2 else None


def _k(group: RunGroup) -> int | None:
    """Return the number of blocks of a surrogate, by its results or else by its configuration."""
    known = [run["model"]["k"] for run in group.runs if isinstance(run["model"].get("k"), int)]
    return known[0] if known else _k_of(group.records[0].configuration)


def _k_of(configuration: Configuration | None) -> int | None:
    options = configuration.options if configuration else {}
    if options.get("task") != "finetune":
        return None
    boundaries, k = options.get("surrogate.boundaries"), options.get("surrogate.k")
    return len(boundaries) + 1 if isinstance(boundaries, list) else k if isinstance(k, int) else None
