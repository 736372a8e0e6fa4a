"""``python -m raptor.report``: gather the results of a study into tables, figures and one HTML page."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.errors import ConfigError, from_node
from raptor.runs.folder import RunFolder

log = logging.getLogger("raptor.report")
ANALYSES = {  # reports of their own; called with study, output and title
    "small_scale": "raptor.studies.small_scale.page.write_small_scale",
    "dynamics": "raptor.studies.dynamics.comparison.write_dynamics_study",
}


def folder(config: DictConfig) -> RunFolder:
    """Where the report is written."""
    return RunFolder(config, default_name="report", track_inputs=False, path=Path(config.output), has_result=False)


@command("report", folder)
def main(config: DictConfig, run: RunFolder) -> None:
    """Write the report of a study."""
    with run.recording():
        write(config)
        run.update(state="finished")


def write(config: DictConfig) -> None:
    """Gather the results of a study into tables, figures and a page."""
    from omegaconf import OmegaConf

    from raptor.reporting.crosstable import CrossTable
    from raptor.reporting.page import write_report
    from raptor.runs.study import Study

    if config.analysis not in (None, *ANALYSES):
        raise ConfigError(f"analysis={config.analysis} is unknown; choose {', '.join(ANALYSES)} or null")
    study = Study(Path(config.paths.runs) / config.study)
    output, title = Path(config.output), config.title or f"Raptor: {config.study}"
    if config.analysis is not None:
        print(get_method(ANALYSES[config.analysis])(study, output, title))
        log.info("%s: tables and their data, figures, report.html", output)
        return
    cross = None
    if config.table is not None:
        node: Any = OmegaConf.to_container(config.table, resolve=True)
        cross = from_node(partial(CrossTable, study), node, "table")
    markdown = write_report(study, output, title, cross)
    print(markdown)
    log.info("%s: tables, runs.csv, figures/, report.html", output)


if __name__ == "__main__":
    main()
