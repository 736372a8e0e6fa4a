"""A table of backbones against data sets, such as the paper's Table 1: which runs fill a cell is configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from raptor.errors import ConfigError, from_node
from raptor.reporting.statistics import MeanCI
from raptor.runs.study import Run, Study

MISSING = "missing"
SPECIAL = {c: "\\" + c for c in "%_&#$"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Column:
    """What one column of the table shows.

    Parameters
    ----------
    title
        Heading, with the unit.
    metric
        Its name in ``result.json``.
    scale
        Factor to the unit of the heading.
    digits
        Decimals.
    higher_is_better
        Whether more is better.
    """

    title: str
    metric: str
    scale: float = 1.0
    digits: int = 1
    higher_is_better: bool = True


@dataclass(frozen=True)
class Row:
    """One backbone.

    Parameters
    ----------
    title
        Its name.
    runs
        Pattern of what stands for ``{row}`` in the names of its runs; ``*`` is anything.
    seeds
        Number of runs that a full cell has.
    published
        By column: the published mean, or mean and standard deviation, in the column's unit.
    line
        Whether figures draw it as a line, to compare bars with.
    """

    title: str
    runs: str
    seeds: int
    published: Mapping[str, Sequence[float]] = field(default_factory=dict)
    line: bool = False


class CrossTable:
    """The ``table`` node of a report.

    Parameters
    ----------
    study
        Finished runs.
    runs
        Name of a cell's runs, with ``{row}`` and ``{column}``.
    rows, columns
        By key; see :class:`Row` and :class:`Column`.
    selection
        Rule of selection whose numbers are shown.
    reference
        Key of the row that shares refer to; None leaves shares out.
    source
        Where published figures come from.
    title
        Heading.

    Raises
    ------
    ConfigError
        If the node has unknown keys or names rows that it lacks.
    """

    def __init__(
        self,
        study: Study,
        runs: str,
        rows: Mapping[str, Any],
        columns: Mapping[str, Any],
        selection: str = "official",
        reference: str | None = None,
        source: str = "",
        title: str = "Table",
    ) -> None:
        self.runs, self.selection, self.reference, self.source, self.title = runs, selection, reference, source, title
        self.rows = {key: from_node(Row, row, f"table.rows.{key}") for key, row in rows.items()}
        self.columns = {key: from_node(Column, column, f"table.columns.{key}") for key, column in columns.items()}
        rules = {name: text for run in study.runs for name, text in _selection(run).get("rules", {}).items()}
        if rules and selection not in rules:
            raise ConfigError(f"table.selection={selection!r} is unknown: choose among {', '.join(rules)}")
        self._rule = f"{selection}: {rules[selection]}" if selection in rules else selection
        if reference is not None and reference not in self.rows:
            raise ConfigError(f"table.reference={reference} is no row of the table: choose among {', '.join(rows)}")
        self._found = {(row, column): self._runs(study, row, column) for row in self.rows for column in self.columns}
        self.cells = pd.DataFrame([self._cell(row, column) for row in self.rows for column in self.columns])

    def _runs(self, study: Study, row: str, column: str) -> list[Run]:
        pattern = self.runs.format(row=self.rows[row].runs, column=column)
        return [run for run in study.runs if fnmatchcase(run["name"], pattern)]

    def covers(self, names: Sequence[str]) -> bool:
        """Whether any of these runs is in a cell."""
        own = {run["name"] for runs in self._found.values() for run in runs}
        return bool(own & set(names))

    def values(self, row: str, column: str) -> list[float]:
        """The number of each run of a cell, by the rule of selection, in the column's unit."""
        name, scale = self.columns[column].metric, self.columns[column].scale
        found = []
        for run in self._found[row, column]:
            chosen = [head["metrics"] for head in _selection(run).get(self.selection, [])]
            values = [
                m[name] for m in (chosen or ([] if _selection(run) else [run["metrics"]])) if m.get(name) is not None
            ]
            found += [scale * sum(values) / len(values)] if values else []
        return found

    def _cell(self, row: str, column: str) -> dict[str, Any]:
        spread, published = MeanCI.of(self.values(row, column)), list(self.rows[row].published.get(column, []))
        against = MeanCI.of(self.values(self.reference, column)).mean if self.reference else float("nan")
        return {
            "row": row,
            "backbone": self.rows[row].title,
            "column": column,
            "measure": self.columns[column].title,
            "mean": spread.mean,
            "std": spread.std,
            "ci95": spread.ci95,
            "n": spread.n,
            "expected": self.rows[row].seeds,
            "share": spread.mean / against,
            "share_std": spread.std / against,
            "published": published[0] if published else None,
            "published_std": published[1] if len(published) > 1 else None,
            "difference": spread.mean - published[0] if published else None,
        }

    def _show(self, cell: pd.Series) -> str:
        spread = MeanCI(cell["mean"], cell["std"], cell["n"], cell["ci95"])
        if not spread.n:
            return MISSING
        missing = cell["expected"] - spread.n
        counted = f" ({spread.n} of {cell['expected']}, {missing} {MISSING})" if missing > 0 else ""
        return spread.show(self.columns[cell["column"]].digits) + counted

    def wide(self) -> pd.DataFrame:
        """As printed: a line for each backbone, mean ± standard deviation, missing cells marked."""
        lines = []
        for row in self.rows.values():
            own = self.cells[self.cells["backbone"] == row.title]
            lines.append({"backbone": row.title} | {cell["measure"]: self._show(cell) for _, cell in own.iterrows()})
        return pd.DataFrame(lines)

    def long(self) -> pd.DataFrame:
        """A line for each cell: n, interval, share of the reference, difference to the published figure."""
        lines = []
        for _, cell in self.cells.iterrows():
            digits = self.columns[cell["column"]].digits
            line = {
                "backbone": cell["backbone"],
                "measure": cell["measure"],
                "mean ± std": self._show(cell),
                "n": f"{cell['n']} of {cell['expected']}",
                "95 % interval of the mean": _show(cell["ci95"], digits, "± "),
            }
            if self.reference:
                line[f"% of {self.rows[self.reference].title}"] = _show(100 * cell["share"], 1)
            if any(row.published for row in self.rows.values()):
                line["published"] = _show(cell["published"], digits) + _show(cell["published_std"], digits, " ± ", "")
                line["difference"] = _show(cell["difference"], digits, sign=True)
            lines.append(line)
        return pd.DataFrame(lines)

    @property
    def caption(self) -> str:
        """What the numbers are, and what they are not."""
        runs = [run for found in self._found.values() for run in found]
        text = (
            "Mean ± standard deviation over runs with different seeds. Cells say how many runs they have where some "
            "are missing; no number is filled in. The interval is Student's, over runs."
        )
        if any(_selection(run) for run in runs):
            text += f" Probes on frozen backbones, selection {self._rule}."
        if any(not _selection(run) for run in runs):
            text += " Runs that are no probes: last step through the teacher's head, nothing selected."
        if self.reference:
            lower = [c.title for c in self.columns.values() if not c.higher_is_better]
            text += f" Shares refer to the mean of {self.rows[self.reference].title}"
            text += f"; for {', '.join(lower)}, above 100 % is worse." if lower else "."
        return text + (f" Published figures: {self.source}." if self.source else "")

    def to_markdown(self) -> str:
        """Both forms, as Markdown."""
        return "\n\n".join(
            table.to_markdown(index=False, disable_numparse=True) for table in (self.wide(), self.long())
        )

    def to_latex(self, details: bool = False) -> str:
        """The printed form, or that with all details, as a ``tabular`` with booktabs' rules."""
        table = self.long() if details else self.wide()
        left = 2 if details else 1
        columns = "l" * left + "r" * (table.shape[1] - left)
        return _tex(table.to_latex(index=False, escape=True, column_format=columns))

    def to_json(self) -> dict[str, Any]:
        """All cells with the values of their runs, as plain data."""
        plain = self.cells.astype(object).where(self.cells.notna(), None)
        return {
            "title": self.title,
            "selection": self.selection,
            "caption": self.caption,
            "cells": [
                {**cell, "values": self.values(cell["row"], cell["column"]), "missing": cell["n"] < cell["expected"]}
                for cell in plain.to_dict("records")
            ],
        }


def latex_document(caption: str) -> str:
    """A document around ``table.tex`` and ``table_details.tex``, to be compiled as it is."""
    caption = _tex("".join(SPECIAL.get(character, character) for character in caption))
    tables = "".join(
        f"\\begin{{table}}\n\\centering\n{size}\\input{{{name}}}\n\\caption{{{text}}}\n\\end{{table}}\n"
        for name, size, text in (("table", "", caption), ("table_details", "\\scriptsize\n", "All cells in detail."))
    )
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage[margin=2cm]{geometry}\n"
    return f"{head}\\begin{{document}}\n{tables}\\end{{document}}\n"


def _tex(text: str) -> str:
    return text.replace("±", r"$\pm$").replace("—", "---")


def _selection(run: Run) -> dict[str, Any]:
    return run.get("selection") or {}


def _show(value: float | None, digits: int, before: str = "", absent: str = "—", sign: bool = False) -> str:
    if value is None or value != value:
        return absent
    return before + (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}")
