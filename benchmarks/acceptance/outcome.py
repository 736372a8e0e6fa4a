"""What a part of the acceptance finds: checks that hold or not, goals of speed, rows against baselines, figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Options, Row


@dataclass(frozen=True)
class Check:
    """One statement about the machine.

    Attributes
    ----------
    what
        What was compared.
    passed
        Whether it holds.
    found, wanted
        Both sides, human-readable.
    goal
        Whether it is a goal of speed, which depends on the card: one that is missed is listed and fails nothing.
    """

    what: str
    passed: bool
    found: str
    wanted: str
    goal: bool = False


@dataclass
class Outcome:
    """Result of one part.

    Attributes
    ----------
    checks
        Statements that hold or not.
    rows
        Measurements against their baselines.
    figures
        Further numbers by name, for programs.
    """

    checks: list[Check] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, passed: bool, found: object, wanted: str) -> None:  # noqa: FBT001
        """Add a statement."""
        self.checks.append(Check(what, bool(passed), str(found), wanted))

    def goal(self, what: str, value: float, least: float, options: Options) -> None:
        """Add a goal, at least ``least``; on a CPU and at small shapes there is none."""
        if options.device.type == "cuda" and not options.quick:
            self.checks.append(Check(what, value >= least, f"{value:.2f}", f"at least {least:g}", goal=True))


Part = Callable[[Options, Path], Outcome]  # the folder is empty, and removed afterwards
