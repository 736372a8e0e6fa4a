"""``python -m raptor.report``: gather the results of a study into tables, figures and one HTML page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from raptor.cli import PACKAGE, command
from raptor.files import write_text

log = logging.getLogger("raptor.report")


@command("report")
def main(config: DictConfig) -> None:
    """Write the report of a study."""
    from raptor.results.gather import Study

    study = Study(Path(config.paths.runs) / config.study)
    output = Path(config.output)
    markdown = write_report(study, output, config.title or f"Raptor: {config.study}")
    print(markdown)
    log.info("%s: table.md, table.csv, runs.csv, figures/, report.html", output)


def write_report(study: Any, output: Path, title: str) -> str:
    """Write table, figures and page of a study; returns the table as Markdown.

    Parameters
    ----------
    study
        A :class:`~raptor.results.gather.Study`.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    """
    import jinja2

    from raptor.results import plots, table
    from raptor.results.figures import embedded, save_figure
    from raptor.results.heatmap import heatmap

    output.mkdir(parents=True, exist_ok=True)
    values = table.rows(study)
    markdown = ""
    if len(values):
        markdown = table.to_markdown(values)
        write_text(output / "table.md", f"{markdown}\n\n{table.CAPTION}\n")
        write_text(output / "table.csv", values.to_csv(index=False))
    write_text(output / "runs.csv", table.runs_csv(study))

    figures = []
    if study.surrogates():
        caption = "Seed standard deviations as error bars. After the paper's Figure 7."
        figures.append(("accuracy_r2", "Accuracy and R2 over k", caption, plots.accuracy_bars(values)))
    for run in study.of_task("phases"):
        caption = "Phases outlined: " + ", ".join(f"{key} {value}" for key, value in run["phases"]["source"].items())
        figure = heatmap(_array(run["distance"]), run["phases"], _source(run["phases"]["source"]))
        figures.append((f"distance_{run['name']}", "Distance between layers", caption, figure))
    if study.surrogates():
        caption = "Thick: mean over seeds, thin: seeds. Dotted: phase boundaries."
        figures.append(("r2_by_layer", "R2 by layer and token type", caption, plots.r2_by_layer(study)))
    if study.of_task("classifier") or study.of_task("distill") or study.surrogates():
        caption = "Thick: mean over seeds, thin: seeds."
        figures.append(("training", "Training", caption, plots.training_curves(study)))
    for name, _, _, figure in figures:
        save_figure(figure, output / "figures" / name)

    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKAGE / "results" / "templates"), autoescape=True
    ).get_template("report.html.j2")
    html = page.render(
        title=title,
        runs=len(study.runs),
        unfinished=[f"{name} ({state})" for name, state in study.unfinished.items()],
        data=study.data,
        header=cells[0] if cells else [],
        body=cells[2:],
        caption=table.CAPTION,
        figures=[{"title": t, "caption": c, "source": embedded(f)} for _, t, c, f in figures],
        all_runs=study.runs,
        versions=study.runs[-1]["versions"],
    )
    write_text(output / "report.html", html)
    return markdown


def _array(values: list[list[float]]) -> Any:
    import numpy as np

    return np.array(values)


def _source(source: dict[str, Any]) -> str:
    return f"{source['data']}, {source['images']} training images" if "data" in source else source["distance"]


if __name__ == "__main__":
    main()
