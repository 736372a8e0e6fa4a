"""One HTML page that stands alone: tables, figures, and the runs behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from raptor.reporting.overview import runs_table
from raptor.reporting.prose import templates
from raptor.reporting.style import embedded, save_figure
from raptor.reporting.table import Table
from raptor.runs.study import Study
from raptor.utils.files import write_text

Picture = tuple[str, str, str, Figure]  # name of file, title, caption, figure


def write_page(
    output: Path,
    title: str,
    about: str,
    tables: Sequence[Table],
    figures: Sequence[Picture],
    versions: Mapping[str, str],
    last: Sequence[Table] = (),
) -> None:
    """Write figures to files, and ``report.html`` with tables and figures.

    Parameters
    ----------
    output
        Folder to write to.
    title, about
        Heading, and a line below it.
    tables
        In this order.
    figures
        Name of file, title, caption and figure of each.
    versions
        Versions of the software.
    last
        Tables below the figures.
    """
    sources = [embedded(figure) for *_, figure in figures]  # the page has captions of its own
    for name, _, caption, figure in figures:
        save_figure(figure, output / "figures" / name, caption)
    shown = [
        {"title": title, "caption": caption, "source": source}
        for (_, title, caption, _), source in zip(figures, sources, strict=True)
    ]
    page = templates().get_template("report.html.j2")
    html = page.render(title=title, about=about, tables=tables, figures=shown, versions=versions, last=last)
    write_text(output / "report.html", html)


def write_study_page(
    study: Study, output: Path, title: str, tables: Sequence[Table], figures: Sequence[Picture]
) -> None:
    """Write the page of a study, with its runs; see :func:`write_page`.

    Parameters
    ----------
    study
        Its runs are listed, finished or not.
    output
        Folder to write to.
    title
        Heading of the page.
    tables, figures
        As in :func:`write_page`.
    """
    left = ", ".join(f"{name} ({state})" for name, state in study.unfinished.items())
    about = f"{len(study.runs)} finished runs{f'; without numbers: {left}' if left else ''}. {study.data}"
    versions = study.runs[-1].get("versions", {})
    write_page(output, title, about, tables, figures, versions, last=[runs_table(study)])
