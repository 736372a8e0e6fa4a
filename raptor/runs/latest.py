"""The study that was run last."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from raptor.errors import ConfigError
from raptor.runs.status import STATUS
from raptor.runs.study import FINISHED, run_folders
from raptor.utils.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """When the last finished run of a study ended.

    Parameters
    ----------
    study, run
        Names of the folders.
    time
        ISO 8601, in UTC; empty where the run does not say it.
    """

    study: str
    run: str
    time: str


def last_study(root: Path) -> str:
    """Name the study whose run ended last.

    Parameters
    ----------
    root
        Root of all runs.

    Raises
    ------
    ConfigError
        If no study has a finished run, or several ended at the same moment.
    """
    endings = [ending for folder in run_folders(root) if (ending := last_ending(folder)) is not None]
    endings.sort(key=lambda ending: ending.time, reverse=True)
    names = ", ".join(ending.study for ending in endings)
    if not endings:
        expected = f"the name of a study with a finished run; {root} has none"
        raise ConfigError.of("study", None, expected, "run a study first, or set paths.runs=... or RAPTOR_RUNS")
    first = endings[0]
    if len(endings) > 1 and endings[1].time == first.time:
        expected = f"the name of one of the studies in {root}, as none of them ended last: {names}"
        raise ConfigError.of("study", None, expected, f"set study=NAME, such as study={first.study}")
    log.info("study=%s, as its run %s ended last%s", first.study, first.run, f" (of {names})" if endings[1:] else "")
    return first.study


def last_ending(study: Path) -> Ending | None:
    """Return when the last finished run of a study ended, None where it has none."""
    endings: list[Ending] = []
    for folder in run_folders(study):
        try:
            status = read_json(folder / STATUS) or {}
        except OSError as error:
            log.warning("%s cannot be read: %s", folder, error.strerror)
            continue
        if status.get("state") == FINISHED and status.get("has_result", True):
            endings.append(Ending(study.name, folder.name, str(status.get("updated", ""))))
    return max(endings, key=lambda ending: ending.time, default=None)
