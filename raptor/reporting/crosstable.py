"""A table of backbones against data sets, such as the paper's Table 1: which runs fill a cell is configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import nan
from typing import Any

import pandas as pd

from raptor.errors import ConfigError
from raptor.reporting.options import TableOptions
from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import NOTHING, Table, latex, show_mean
from raptor.runs.groups import RunGroup, group_records, number
from raptor.runs.labels import differences, join
from raptor.runs.study import Run, Study

log = logging.getLogger(__name__)


class CrossTable:
    """The ``table`` node of a report, filled from the runs of a study.

    Parameters
    ----------
    study
        Finished runs.
    options
        Rows, columns, and the names of the runs of a cell.

    Raises
    ------
    ConfigError
        If the node names a row or a rule of selection that there is not.
    """

    def __init__(self, study: Study, options: TableOptions) -> None:
        self.rows, self.columns, self.title, self.source = options.rows, options.columns, options.title, options.source
        self.selection, self.reference = selection, reference = options.selection, options.reference
        rules = {name: text for run in study.runs for name, text in _selection(run).get("rules", {}).items()}
        if rules and selection not in rules:
            fix = "choose one that the probes of this study were selected by"
            raise ConfigError.of("table.selection", selection, f"one of {', '.join(rules)}", fix)
        self._rule = f"{selection}: {rules[selection]}" if selection in rules else selection
        if reference is not None and reference not in self.rows:
            expected = f"a row of the table: {', '.join(self.rows)}"
            raise ConfigError.of("table.reference", reference, expected, "name one of them, or null for no shares")
        self._groups = {
            (row, column): self._find(study, options.runs.format(row=self.rows[row].runs, column=column))
            for row in self.rows
            for column in self.columns
        }
        self.cells = pd.DataFrame([self._cell(row, column) for row in self.rows for column in self.columns])

    def _find(self, study: Study, pattern: str) -> list[RunGroup]:
        """Return the groups of the runs of a cell: one, unless the pattern matches different experiments."""
        groups = group_records([record for record in study.records if fnmatchcase(record.name, pattern)])
        if len(groups) > 1:
            parts = zip(groups, differences(groups), strict=True)
            kinds = "; ".join(join(group.records[0].name, differing) for group, differing in parts)
            log.warning("%s matches runs that differ in more than their seeds, not averaged: %s", pattern, kinds)
        return groups

    def covers(self, names: Sequence[str]) -> bool:
        """Whether any of these runs is in a cell."""
        return bool({run["name"] for run in self._all()} & set(names))

    def _all(self) -> list[Run]:
        return [run for groups in self._groups.values() for group in groups for run in group.runs]

    def values(self, row: str, column: str) -> list[float]:
        """Return the number of each distinct seed of a cell, by the rule of selection, in the column's unit."""
        scale = self.columns[column].scale
        groups = self._groups[row, column]
        seeds = [seed for group in groups for seed in group.by_seed(lambda run: self._number(run, column))]
        return [scale * sum(repeats) / len(repeats) for repeats in seeds]

    def _number(self, run: Run, column: str) -> float | None:
        """Return the number of one run: of a probe the mean over the heads that the rule selected."""
        name, selection = self.columns[column].metric, _selection(run)
        if not selection:
            return number(run["metrics"].get(name))
        heads = [number(head["metrics"].get(name)) for head in selection.get(self.selection, [])]
        known = [value for value in heads if value is not None]
        return sum(known) / len(known) if known else None

    def _mean(self, row: str, column: str) -> MeanCI:
        """Return the mean of a cell, over nothing where its runs are of different experiments."""
        return MeanCI.of(self.values(row, column) if len(self._groups[row, column]) < 2 else [])

    def _cell(self, row: str, column: str) -> dict[str, Any]:
        groups, published = self._groups[row, column], list(self.rows[row].published.get(column, []))
        mean = self._mean(row, column)
        # a reference of 0 has no shares
        against = (self._mean(self.reference, column).mean or nan) if self.reference else nan
        return {
            "row": row,
            "backbone": self.rows[row].title,
            "column": column,
            "measure": self.columns[column].title,
            "mean": mean.mean,
            "std": mean.std,
            "ci95": mean.ci95,
            "n": mean.n,
            "expected": self.rows[row].seeds,
            "configurations": len(groups),
            "runs": "; ".join(filter(None, (group.about_runs() for group in groups))),
            "share": mean.mean / against,
            "share_std": mean.std / against,
            "published": published[0] if published else None,
            "published_std": published[1] if len(published) > 1 else None,
            "difference": mean.mean - published[0] if published else None,
        }

    def _show(self, cell: Mapping[str, Any]) -> str:
        if cell["configurations"] > 1:
            return f"mixed: {cell['configurations']} configurations"
        mean = MeanCI(cell["mean"], cell["std"], cell["n"], cell["ci95"])
        return show_mean(mean, cell["expected"], self.columns[cell["column"]].digits)

    def wide(self) -> pd.DataFrame:
        """Return the table as printed: a line for each backbone, mean ± standard deviation, missing cells marked."""
        lines = []
        for row in self.rows.values():
            own = self.cells[self.cells["backbone"] == row.title].to_dict("records")
            lines.append({"backbone": row.title} | {cell["measure"]: self._show(cell) for cell in own})  # type: ignore[arg-type]
        return pd.DataFrame(lines)

    def long(self) -> pd.DataFrame:
        """Return a line for each cell: n, interval, share of the reference, difference to the published figure."""
        lines = []
        for cell in self.cells.to_dict("records"):
            digits = self.columns[cell["column"]].digits
            line = {
                "backbone": cell["backbone"],
                "measure": cell["measure"],
                "mean ± std": self._show(cell),  # type: ignore[arg-type]
                "n": f"{cell['n']} of {cell['expected']}",
                "95 % interval of the mean": _show(cell["ci95"], digits, "± "),
            }
            if self.reference:
                line[f"% of {self.rows[self.reference].title}"] = _show(100 * cell["share"], 1)
            if any(row.published for row in self.rows.values()):
                line["published"] = _show(cell["published"], digits) + _show(cell["published_std"], digits, " ± ", "")
                line["difference"] = _show(cell["difference"], digits, sign="+")
            lines.append(line | {"runs": cell["runs"] or NOTHING})
        shown = pd.DataFrame(lines)
        return shown if (shown["runs"] != NOTHING).any() else shown.drop(columns="runs")

    @property
    def caption(self) -> str:
        """What the numbers are, and what they are not."""
        runs = self._all()
        return caption(
            "cross_table",
            has_probes=any(_selection(run) for run in runs),
            rule=self._rule,
            has_others=any(not _selection(run) for run in runs),
            reference=self.rows[self.reference].title if self.reference else None,
            lower=[column.title for column in self.columns.values() if not column.higher_is_better],
            source=self.source,
        )

    def tables(self) -> tuple[Table, Table]:
        """Return the table as printed, and in detail."""
        return (
            Table("table", self.title, self.wide(), self.caption),
            Table("table_details", f"{self.title} in detail", self.long(), caption("cross_details")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return all cells with the values of their seeds, as plain data."""
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


def latex_document(caption: str, of_details: str) -> str:
    """Return a document around ``table.tex`` and ``table_details.tex``, to be compiled as it is."""
    tables = "".join(
        f"\\begin{{table}}\n\\centering\n{size}\\input{{{name}}}\n\\caption{{{latex(text)}}}\n\\end{{table}}\n"
        for name, size, text in (("table", "", caption), ("table_details", "\\scriptsize\n", of_details))
    )
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage[margin=2cm]{geometry}\n"
    return f"{head}\\begin{{document}}\n{tables}\\end{{document}}\n"


def _selection(run: Run) -> dict[str, Any]:
    selection = run.get("selection")
    return selection if isinstance(selection, dict) else {}


def _show(value: float | None, digits: int, before: str = "", absent: str = NOTHING, sign: str = "") -> str:
    return absent if value is None or value != value else f"{before}{value:{sign}.{digits}f}"
