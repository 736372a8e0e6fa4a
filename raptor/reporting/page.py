"""The report of a study: tables in every form, figures, and one HTML page that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from raptor.reporting import figures as plots
from raptor.reporting import table
from raptor.reporting.crosstable import CrossTable, latex_document
from raptor.reporting.heatmap import heatmap
from raptor.reporting.style import embedded, save_figure
from raptor.runs.study import Study
from raptor.utils.files import PACKAGE, write_json, write_text

PROSE = 32  # characters: longer cells are wrapped
FOLDED = 16  # rows: longer tables are shown on demand


def write_report(study: Study, output: Path, title: str, cross: CrossTable | None = None) -> str:
    """Write tables, figures and page of a study; returns its tables as Markdown.

    Parameters
    ----------
    study
        A :class:`~raptor.runs.study.Study`.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    cross
        A :class:`~raptor.reporting.crosstable.CrossTable` to begin with, or None.
    """
    output.mkdir(parents=True, exist_ok=True)
    values = table.rows(study)
    tables = write_cross_table(cross, output) if cross is not None else []
    # where the table has the surrogates as rows of its own, they must not be thrown together by k
    apart = cross is None or not cross.covers([run["name"] for runs in study.surrogates().values() for run in runs])
    if len(values) and apart:
        name, caption = "table" if cross is None else "surrogates", table.caption(study)
        tables.append((name.capitalize(), table.to_markdown(values), caption))
        write_text(output / f"{name}.md", f"{tables[-1][1]}\n\n{caption}\n")
        write_text(output / f"{name}.csv", values.to_csv(index=False))
    write_text(output / "runs.csv", table.runs_csv(study))

    figures = []
    if cross is not None:
        what = "Means as shares of the reference's. After the paper's Figure 7." if cross.reference else "Means."
        caption = f"{what} Seed standard deviations as error bars."
        bars = plots.cross_bars(cross, values if apart else values[:0])
        figures.append(("figure7" if cross.reference else "bars", cross.title, caption, bars))
    elif study.surrogates():
        caption = "Seed standard deviations as error bars. After the paper's Figure 7."
        figures.append(("accuracy_r2", "Accuracy and R2 over k", caption, plots.accuracy_bars(values)))
    for run in study.of_task("phases"):
        caption = "Phases outlined: " + ", ".join(f"{key} {value}" for key, value in run["phases"]["source"].items())
        figure = heatmap(np.array(run["distance"]), run["phases"], _source(run["phases"]["source"]))
        figures.append((f"distance_{run['name']}", "Distance between layers", caption, figure))
    if study.surrogates() and apart:
        caption = "Thick: mean over seeds, thin: seeds. Dotted: phase boundaries."
        figures.append(("r2_by_layer", "R2 by layer and token type", caption, plots.r2_by_layer(study)))
    if apart and (study.of_task("classifier") or study.of_task("distill") or study.surrogates()):
        caption = "Thick: mean over seeds, thin: seeds."
        figures.append(("training", "Training", caption, plots.training_curves(study)))
    write_study_page(study, output, title, tables, figures)
    return "\n\n".join(text for _, text, _ in tables)


def write_page(
    output: Path,
    title: str,
    about: str,
    tables: Sequence[tuple[str, str, str]],
    figures: Sequence[tuple[str, str, str, Figure]],
    versions: dict[str, str],
    runs: Sequence[dict[str, Any]] = (),
) -> None:
    """Write figures to files, and ``report.html``, which stands alone: tables, figures, and the runs behind them.

    Parameters
    ----------
    output
        Folder to write to.
    title, about
        Heading, and a line below it.
    tables
        Title, Markdown and caption of each.
    figures
        Name, title, caption and figure of each.
    versions
        Versions of the software.
    runs
        Results to list.
    """
    sources = [embedded(figure) for *_, figure in figures]  # the page has captions of its own
    for name, _, caption, figure in figures:
        save_figure(figure, output / "figures" / name, caption)
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE / "reporting" / "templates"), autoescape=True
    ).get_template("report.html.j2")
    html = page.render(
        title=title,
        about=about,
        tables=[{"title": t, "parts": _cells(text), "caption": c} for t, text, c in tables],
        figures=[
            {"title": title, "caption": caption, "source": source}
            for (_, title, caption, _), source in zip(figures, sources, strict=True)
        ],
        all_runs=runs,
        versions=versions,
    )
    write_text(output / "report.html", html)


def write_study_page(
    study: Study,
    output: Path,
    title: str,
    tables: Sequence[tuple[str, str, str]],
    figures: Sequence[tuple[str, str, str, Figure]],
) -> None:
    """Write the page of a study, with its runs: see :func:`write_page`.

    Parameters
    ----------
    study
        Its runs are listed.
    output
        Folder to write to.
    title
        Heading of the page.
    tables
        Title, Markdown and caption of each.
    figures
        Name of file, title, caption and figure of each.
    """
    left_out = ", ".join(f"{name} ({state})" for name, state in study.unfinished.items())
    about = (
        f"{len(study.runs)} finished runs{f'; not finished and left out: {left_out}' if left_out else ''}. {study.data}"
    )
    write_page(output, title, about, tables, figures, study.runs[-1]["versions"], study.runs)


def write_cross_table(cross: CrossTable, output: Path) -> list[tuple[str, str, str]]:
    """Write a table of backbones against data sets in all its forms; returns title, Markdown and caption."""
    markdown = cross.to_markdown()
    write_text(output / "table.md", f"{markdown}\n\n{cross.caption}\n")
    write_text(output / "table.csv", cross.cells.to_csv(index=False))
    write_json(output / "table.json", cross.to_json())
    write_text(output / "table.tex", cross.to_latex())
    write_text(output / "table_details.tex", cross.to_latex(details=True))
    write_text(output / "table_document.tex", latex_document(cross.caption))
    return [(cross.title, markdown, cross.caption)]


def _cells(markdown: str) -> list[dict[str, Any]]:
    """Tables of a Markdown text, as heads and bodies of cells; columns of prose are told apart."""
    parts = []
    for text in markdown.split("\n\n"):
        header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
        prose = [any(len(cell) > PROSE for cell in column) for column in zip(*body, strict=True)]
        parts.append({"header": header, "body": body, "prose": prose, "folded": len(body) > FOLDED})
    return parts


def _source(source: dict[str, Any]) -> str:
    return f"{source['data']}, {source['images']} training images" if "data" in source else source["distance"]
