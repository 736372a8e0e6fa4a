"""The findings of several runs of ``raptor.dynamics`` side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from raptor.errors import ConfigError
from raptor.reporting.page import write_study_page
from raptor.reporting.prose import caption
from raptor.reporting.table import Table
from raptor.runs.study import Run, Study
from raptor.utils.files import write_text

TEMPLATES = Path(__file__).parent / "templates"


def write_dynamics_study(study: Study, output: Path, title: str) -> str:
    """Write the findings of all runs as table, CSV and page; returns the table as Markdown.

    Parameters
    ----------
    study
        Its runs of ``raptor.dynamics`` are gathered.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.

    Raises
    ------
    ConfigError
        If there is no such run.
    """
    runs = study.of_task("dynamics")
    if not runs:
        expected = "a study with a finished run of python -m raptor.dynamics"
        raise ConfigError.of("study", study.root.name, expected, "run it first")
    output.mkdir(parents=True, exist_ok=True)
    text = caption("comparison", TEMPLATES, runs=runs)
    table = Table("findings", "Findings", findings_of(runs), text)
    table.write_markdown(output)
    write_text(output / "findings.csv", values_of(runs).to_csv(index=False))
    write_study_page(study, output, title, [table], [])
    return f"{table.to_markdown()}\n\n{text}"


def findings_of(runs: list[Run]) -> pd.DataFrame:
    """Build a table with a row for each finding and a column for each run."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        for finding in run["findings"]:
            first = {key: finding[key] for key in ("finding", "tokens", "statistic")}
            rows.setdefault((finding["finding"], finding["tokens"]), first)[run["name"]] = _cell(finding)
    return pd.DataFrame(rows.values()).fillna("-")


def values_of(runs: list[Run]) -> pd.DataFrame:
    """Build the table of values: a row for each run, finding and network."""
    return pd.DataFrame(
        [
            {"run": run["name"], **{key: finding[key] for key in ("finding", "tokens", "statistic", "verdict")}}
            | {"network": network, **value}
            for run in runs
            for finding in run["findings"]
            for network, value in finding["values"].items()
        ]
    )


def _cell(finding: dict[str, Any]) -> str:
    values, digits = finding["values"], finding["digits"]

    def show(value: dict[str, float | None]) -> str:
        if value["mean"] is None or value["ci95"] is None:
            return "too few images"
        return f"{value['mean']:.{digits}f} ± {value['ci95']:.{digits}f}"

    control = f" ({show(values['untrained'])})" if "untrained" in values else ""
    return f"{finding['verdict']}: {show(next(iter(values.values())))}{control}"
