"""Jobs that may run side by side, sorted by what there is still to do for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raptor.errors import ConfigError, RunFolderError
from raptor.launching.job import FrozenJob
from raptor.launching.local import here
from raptor.runs.folder import RunFolder
from raptor.runs.status import ENDED, state_of


@dataclass
class Stage:
    """Jobs that may run side by side.

    Parameters
    ----------
    name
        What SLURM and the progress display call them.
    jobs
        All of them.
    """

    name: str
    jobs: list[FrozenJob]
    finished: list[FrozenJob] = field(default_factory=list)
    under_way: dict[str, FrozenJob] = field(default_factory=dict)  # by SLURM's id
    to_run: list[FrozenJob] = field(default_factory=list)

    def sort(self, queue: Mapping[str, str]) -> None:
        """Find out what is done and what is under way, by the run folders and SLURM's queue.

        Raises
        ------
        RunFolderError
            If a folder belongs to another configuration, or a process of this machine is at work in it.
        """
        for job in self.jobs:
            folder = job.folder()
            status = folder.status()
            state = state_of(status, queue)
            ident = (status.get("slurm") or {}).get("job")
            if state.name not in ENDED and ident and state.certain:
                self.under_way[ident] = job
            elif state.name not in ENDED and (status.get("host"), status.get("pid")) != tuple(here().values()):
                raise RunFolderError(f"{folder} is in use by process {status.get('pid')} on {status.get('host')}")
            elif is_finished(job, folder):
                self.finished.append(job)
            else:
                self.to_run.append(job)
        paths = [str(job.folder()) for job in self.to_run]
        if twice := {path for path in paths if paths.count(path) > 1}:
            raise ConfigError(
                f"several jobs of {self.name} have the run folder {min(twice)}: give them names of their own"
            )


def is_finished(job: FrozenJob, folder: RunFolder) -> bool:
    """Whether there is nothing left to do for a job, by its folder."""
    if folder.has_result:
        return folder.result() is not None
    if job.command != "extract" or job.config["verify"] or job.config["mend"]:
        return False
    return folder.is_recorded() and folder.status().get("state") == "finished" and Path(job.config["store"]).exists()
