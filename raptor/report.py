"""``python -m raptor.report``: gather the results of a study into tables, figures and one HTML page."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from hydra.utils import get_method
from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.errors import from_node
from raptor.reporting.options import ReportOptions
from raptor.runs.folder import RunFolder

log = logging.getLogger("raptor.report")
ANALYSES = {  # reports of their own; called with study, output and title
    "small_scale": "raptor.studies.small_scale.page.write_small_scale",
    "dynamics": "raptor.studies.dynamics.comparison.write_dynamics_study",
}


def folder(options: ReportOptions, config: DictConfig) -> RunFolder:
    """Make the folder in which the report is written."""
    return RunFolder(options, config, "report", track_inputs=False, path=Path(options.output), has_result=False)


@command(ReportOptions, folder)
def main(options: ReportOptions, run: RunFolder) -> None:
    """Write the report of a study."""
    with run.recording():
        write(options)
        run.update(state="finished")


def write(options: ReportOptions) -> None:
    """Gather the results of a study into tables, figures and a page."""
    from raptor.reporting.crosstable import CrossTable
    from raptor.reporting.study import write_report
    from raptor.runs.study import Study

    study = Study(Path(options.paths.runs) / str(options.study))
    output, title = Path(options.output), options.title or f"Raptor: {options.study}"
    if options.analysis is not None:
        print(get_method(ANALYSES[options.analysis])(study, output, title))
        log.info("%s: tables and their data, figures, report.html", output)
        return
    cross = None
    if options.table is not None:
        cross = from_node(partial(CrossTable, study), options.table, "table")
    markdown = write_report(study, output, title, cross)
    print(markdown)
    log.info("%s: tables, runs.csv, figures/, report.html", output)


if __name__ == "__main__":
    main()
