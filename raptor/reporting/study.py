"""The report of a study: tables in every form, figures, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raptor.reporting import figures as plots
from raptor.reporting.crosstable import CrossTable, latex_document
from raptor.reporting.floors import floor_tables
from raptor.reporting.heatmap import heatmap, teacher_heatmaps
from raptor.reporting.layers import measure_of, r2_by_layer
from raptor.reporting.overview import overview, rows, runs_csv
from raptor.reporting.page import Picture, write_study_page
from raptor.reporting.prose import caption
from raptor.reporting.table import Table
from raptor.runs.groups import RunGroup
from raptor.runs.study import Study
from raptor.utils.files import write_json, write_text

MOST = 8  # panels and pictures of one kind; a page with hundreds cannot be read


def write_report(study: Study, output: Path, title: str, cross: CrossTable | None = None) -> str:
    """Write tables, figures and page of a study; returns its tables as Markdown.

    Parameters
    ----------
    study
        Its runs.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    cross
        Table of backbones against data sets to begin with, or None.
    """
    output.mkdir(parents=True, exist_ok=True)
    surrogates, values = study.surrogates(), rows(study)
    tables = write_cross_table(cross, output) if cross is not None else []
    # where the table has the surrogates as rows of its own, they must not be thrown together by k
    apart = cross is None or not cross.covers([run["name"] for group in surrogates for run in group.runs])
    if len(values) and apart:
        tables.append(overview(study, values, "table" if cross is None else "surrogates"))
        tables[-1].write_markdown(output)
        write_text(output / f"{tables[-1].name}.csv", values.to_csv(index=False))
    for table in floor_tables(study, surrogates):
        table.write_markdown(output)
        tables.append(table)
    write_text(output / "runs.csv", runs_csv(study))
    figures = _figures(study, surrogates if apart else [], values if apart else values[:0], cross)
    write_study_page(study, output, title, tables, figures)
    return "\n\n".join(table.to_markdown() for table in tables)


def write_cross_table(cross: CrossTable, output: Path) -> list[Table]:
    """Write a table of backbones against data sets in all its forms; returns it as printed, and in detail."""
    wide, details = cross.tables()
    write_text(output / "table.md", f"{wide.to_markdown()}\n\n{details.to_markdown()}\n\n{wide.caption}\n")
    write_text(output / "table.csv", cross.cells.to_csv(index=False))
    write_json(output / "table.json", cross.to_json())
    write_text(output / "table.tex", wide.to_latex())
    write_text(output / "table_details.tex", details.to_latex(left=2))
    write_text(output / "table_document.tex", latex_document(wide.caption, details.caption))
    return [wide, details]


def _figures(
    study: Study, surrogates: Sequence[RunGroup], values: pd.DataFrame, cross: CrossTable | None
) -> list[Picture]:
    shown = [group for group in surrogates if group.runs]
    more = len(shown) - MOST
    shown = shown[:MOST]
    of_surrogates = values[values["backbone"].str.startswith("k=")][:MOST] if len(values) else values
    rest = values[~values["backbone"].str.startswith("k=")] if len(values) else values
    values = pd.concat([of_surrogates, rest])
    figures: list[Picture] = []
    if cross is not None:
        name = "figure7" if cross.reference else "means"
        text = caption("cross_figure", reference=cross.reference, more=more)
        figures.append((name, cross.title, text, plots.cross_shares(cross, values)))
    elif shown:
        text = caption("accuracy", more=more)
        figures.append(("accuracy_r2", "Accuracy and R2 over k", text, plots.accuracy(values)))
    phases = [run for run in study.of_task("phases") if isinstance(run.get("phases"), dict)]
    for run in phases[:MOST]:
        text = caption("distance", source=run["phases"]["source"], more=len(phases) - MOST)
        figure = heatmap(np.array(run["distance"], dtype=float), run["phases"], _source(run["phases"]["source"]))
        figures.append((f"distance_{run['name']}", "Distance between layers", text, figure))
    for run in study.of_task("teacher_phases"):
        teachers = {name: (np.array(found["distance"]), found["phases"]) for name, found in run["teachers"].items()}
        figure = teacher_heatmaps(teachers)
        figures.append((f"teachers_{run['name']}", "Layers of several teachers", caption("teachers"), figure))
    if shown:
        text = caption("r2_by_layer", centred=measure_of(shown) == "r2_centered", more=more)
        figures.append(("r2_by_layer", "R2 by layer and token type", text, r2_by_layer(shown)))
    apart = cross is None or bool(shown)
    if apart and (study.of_task("classifier") or study.of_task("distill") or shown):
        text = caption("training", more=more)
        figures.append(("training", "Training", text, plots.training_curves(study, shown)))
    return figures


def _source(source: dict[str, Any]) -> str:
    return f"{source['data']}, {source['images']} training images" if "data" in source else source["distance"]
