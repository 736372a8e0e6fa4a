"""``python -m raptor.report``: gather the results of a study into tables, figures and one HTML page."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig

from raptor.cli import sweeps
from raptor.cli.command import command
from raptor.reporting.options import ReportOptions
from raptor.runs.folder import RunFolder
from raptor.utils.files import CONFIGS

log = logging.getLogger("raptor.report")
ANALYSES = {  # reports of their own; called with study, output and title
    "controls": "raptor.studies.controls.page.write_controls",
    "small_scale": "raptor.studies.small_scale.page.write_small_scale",
    "dynamics": "raptor.studies.dynamics.comparison.write_dynamics_study",
    "proof": "raptor.studies.proof.page.write_proof",
}


def folder(options: ReportOptions, config: DictConfig) -> RunFolder:
    """Make the folder in which the report is written."""
    options, config = choose_study(options, config)
    return RunFolder(options, config, "report", track_inputs=False, path=output_of(options), has_result=False)


def choose_study(options: ReportOptions, config: DictConfig) -> tuple[ReportOptions, DictConfig]:
    """Fill in the study that was run last, and the table of the experiment that is called like the study.

    Raises
    ------
    ConfigError
        If no study has a finished run, or the last one is not clear.
    """
    from raptor.runs.latest import last_study

    study = options.study if options.study is not None else last_study(Path(options.paths.runs))
    if not (CONFIGS / "experiment" / f"{study}.yaml").is_file() or _says_what():
        return dataclasses.replace(options, study=study), config
    log.info("study=%s is reported as experiment=%s says; table=null reports it without a table", study, study)
    (job,) = sweeps.jobs("report", [*HydraConfig.get().overrides.task, f"experiment={study}", f"study={study}"])
    return main.parse(job.config), job.config


def _says_what() -> bool:
    """Whether the command line says what the report is: by an experiment, a table or an analysis."""
    if not HydraConfig.initialized():  # a job that a launcher started
        return True
    hydra = HydraConfig.get()
    given = {override.lstrip("+~").split("=")[0].split(".")[0] for override in hydra.overrides.task}
    return bool(given & {"experiment", "table", "analysis"}) or hydra.runtime.choices.get("experiment") is not None


def output_of(options: ReportOptions) -> Path:
    """Return the folder that a report is written to."""
    return Path(options.output or Path(options.paths.runs) / str(options.study) / "report")


@command(ReportOptions, folder)
def main(options: ReportOptions, run: RunFolder) -> None:
    """Write the report of a study."""
    assert isinstance(run.options, ReportOptions)
    with run.recording():
        write(run.options)
        run.update(state="finished")


def write(options: ReportOptions) -> None:
    """Gather the results of a study into tables, figures and a page."""
    from raptor.reporting.crosstable import CrossTable
    from raptor.reporting.study import write_report
    from raptor.runs.study import Study

    study = Study(Path(options.paths.runs) / str(options.study))
    output, title = output_of(options), options.title or f"Raptor: {options.study}"
    if options.analysis is not None:
        print(get_method(ANALYSES[options.analysis])(study, output, title))
        log.info("%s: tables and their data, figures, report.html", output)
        return
    cross = None if options.table is None else CrossTable(study, options.table)
    markdown = write_report(study, output, title, cross)
    print(markdown)
    log.info("%s: tables, runs.csv, figures/, report.html", output)


if __name__ == "__main__":
    main()
