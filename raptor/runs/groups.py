"""Groups of runs that differ only in their seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Options = Mapping[str, Any]
SEED, RUNS = "seed", "<paths.runs>/"


@dataclass(frozen=True)
class Configuration:
    """What a run computes, apart from its seeds.

    Parameters
    ----------
    options
        Value by full name, without seeds; a run that it builds on stands by its own group.
    seeds
        Seed by full name, of the run and of every run that it builds on.
    built_on
        Folders that it builds on, by option.
    """

    options: Options
    seeds: Mapping[str, Any] = field(default_factory=dict)
    built_on: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def group(self) -> str:
        """Digest of the options: equal for runs that differ only in seeds."""
        return hashlib.sha256(json.dumps(self.options, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def draw(self) -> str:
        """Text of the seeds: equal for repeats of one seed."""
        return json.dumps(self.seeds, sort_keys=True, default=str)


class Configurations:
    """Configurations of run folders, each read once.

    Parameters
    ----------
    root
        Root of all runs, which references such as ``<paths.runs>/demo/blocks-seed0`` are relative to.
    read
        Returns the options of a run folder by full name, or None where they cannot be read.
    """

    def __init__(self, root: Path, read: Callable[[Path], Options | None]) -> None:
        self.root, self._read = root, read
        self._known: dict[Path, Configuration | None] = {}

    def of(self, folder: Path) -> Configuration | None:
        """Return the configuration of a run folder, None where it cannot be read."""
        if folder not in self._known:
            self._known[folder] = None  # ends the search where runs name each other in a circle
            options = self._read(folder)
            self._known[folder] = None if options is None else self._split(options)
        return self._known[folder]

    def _split(self, options: Options) -> Configuration:
        kept: dict[str, Any] = {}
        seeds: dict[str, Any] = {}
        built_on: dict[str, Path] = {}
        for key, value in options.items():
            if key.rpartition(".")[2] == SEED:
                seeds[key] = value
            elif isinstance(value, list):
                kept[key] = [self._refer(f"{key}.{i}", part, seeds, built_on) for i, part in enumerate(value)]
            else:
                kept[key] = self._refer(key, value, seeds, built_on)
        return Configuration(kept, seeds, built_on)

    def _refer(self, key: str, value: Any, seeds: dict[str, Any], built_on: dict[str, Path]) -> Any:
        """Replace the folder of a run by its group, and collect its seeds."""
        if not isinstance(value, str) or not value.startswith(RUNS):
            return value
        study, _, rest = value.removeprefix(RUNS).partition("/")
        name, _, rest = rest.partition("/")
        configuration = self.of(self.root / study / name) if name else None
        if configuration is None:
            return value
        built_on[key] = self.root / study / name
        seeds.update({f"{key}.{inner}": seed for inner, seed in configuration.seeds.items()})
        return f"{RUNS}{configuration.group[:16]}/{rest}"


@dataclass(frozen=True)
class Record:
    """One run folder of a study.

    Parameters
    ----------
    name
        Name of the folder.
    state
        ``finished``, the state in which a run stands that is not, or why its folder cannot be read.
    error
        Message of a failed run.
    result
        Content of ``result.json``; None for a run that is not finished.
    configuration
        What it computes; None where that cannot be read.
    """

    name: str
    state: str
    error: str = ""
    result: dict[str, Any] | None = None
    configuration: Configuration | None = None

    @property
    def task(self) -> str:
        """Name of its task, empty where nothing says it."""
        if self.result is not None:
            return str(self.result["task"])
        options = self.configuration.options if self.configuration else {}
        return str(options.get("task", ""))

    @property
    def group(self) -> str:
        """What runs of one group share; a run without a readable configuration is a group of its own."""
        return self.configuration.group if self.configuration else f"run {self.name}"

    @property
    def draw(self) -> str:
        """What repeats of one seed share."""
        return self.configuration.draw if self.configuration else self.name

    @property
    def seed(self) -> Any:
        """Its own seed, None where nothing says it."""
        if self.configuration and SEED in self.configuration.seeds:
            return self.configuration.seeds[SEED]
        return self.result.get(SEED) if self.result else None


@dataclass
class RunGroup:
    """Runs that differ only in their seeds.

    Parameters
    ----------
    records
        At least one, finished or not.
    label
        Name in tables and figures.
    """

    records: list[Record]
    label: str = ""

    @property
    def key(self) -> str:
        """What its runs share."""
        return self.records[0].group

    @property
    def options(self) -> Options:
        """Options that its runs share; of a run without a readable configuration, its name."""
        configuration = self.records[0].configuration
        return configuration.options if configuration else {"run": self.records[0].name}

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Results of the finished runs."""
        return [record.result for record in self.records if record.result is not None]

    @property
    def expected(self) -> int:
        """Number of distinct seeds, of runs that are finished or not."""
        return len({record.draw for record in self.records})

    def by_seed(self, read: Callable[[dict[str, Any]], Any]) -> list[list[Any]]:
        """Collect what ``read`` returns for each finished run, repeats of a seed together, without None.

        Returns
        -------
        list of list
            One list for each distinct seed that has a value.
        """
        by_draw: dict[str, list[Any]] = {}
        for record in self.records:
            value = None if record.result is None else read(record.result)
            if value is not None:
                by_draw.setdefault(record.draw, []).append(value)
        return list(by_draw.values())

    def values(self, metric: str) -> list[float]:
        """Return a metric for each distinct seed that has it: the mean over repeats of the seed."""
        return [sum(v) / len(v) for v in self.by_seed(lambda run: number(run["metrics"].get(metric)))]

    def about_runs(self) -> str:
        """Return in words what a number of seeds leaves out: repeats, and runs that are not finished."""
        repeats: dict[str, list[Record]] = {}
        for record in self.records:
            if record.result is not None:
                repeats.setdefault(record.draw, []).append(record)
        notes = [f"{len(same)} repeats of seed {same[0].seed}" for same in repeats.values() if len(same) > 1]
        states = [record.state for record in self.records if record.result is None]
        return ", ".join([*notes, *(f"{states.count(state)} {state}" for state in dict.fromkeys(states))])


def number(value: Any) -> float | None:
    """Return a finite number as it is, and None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if usable else None


def group_records(records: Sequence[Record]) -> list[RunGroup]:
    """Put together the runs that differ only in their seeds, in order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    return [RunGroup(members) for members in groups.values()]
