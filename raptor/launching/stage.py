"""Jobs that may run side by side, sorted by what there is still to do for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raptor.errors import ConfigError, RunFolderError
from raptor.launching.job import JobSpec
from raptor.runs.folder import RunFolder
from raptor.runs.status import ENDED, State, state_of


@dataclass
class Stage:
    """Jobs that may run side by side.

    Parameters
    ----------
    name
        Name in SLURM's queue and in the progress display.
    jobs
        All of them.
    """

    name: str
    jobs: list[JobSpec]
    finished: list[JobSpec] = field(default_factory=list)
    under_way: dict[str, JobSpec] = field(default_factory=dict)  # by SLURM's id
    to_run: list[JobSpec] = field(default_factory=list)

    def sort(self, queue: Mapping[str, str]) -> None:
        """Sort jobs into finished, under way and to run, by the run folders and SLURM's queue.

        Raises
        ------
        RunFolderError
            If a folder belongs to another configuration, or another process is at work in it.
        """
        for job in self.jobs:
            folder = job.folder()
            status = folder.status()
            state = state_of(folder.path, status, queue)
            ident = (status.get("slurm") or {}).get("job")
            if state.name in ENDED:
                (self.finished if is_finished(job, folder) else self.to_run).append(job)
                continue
            if not folder.is_recorded():
                expected = f"a run of this configuration (one of another is {state.name} there)"
                raise RunFolderError.of("folder", folder, expected, "choose another name=...")
            if not (ident and state.certain):
                raise _busy(folder, state)
            self.under_way[ident] = job
        paths = [str(job.folder()) for job in self.to_run]
        if twice := {path for path in paths if paths.count(path) > 1}:
            expected = f"a run folder of its own for each job of {self.name} (several have {min(twice)})"
            raise ConfigError.of(
                "name", self.jobs[0].config["name"], expected, "name them by what differs, or name=null"
            )


def _busy(folder: RunFolder, state: State) -> RunFolderError:
    status = folder.status()
    expected = (
        f"a folder that nothing works in (process {status.get('pid')} on {status.get('host')} is {state.name}, by its "
        f"status of {status.get('updated')})"
    )
    fix = f"wait for it or stop it; if it is gone, delete {folder.path / 'status.json'}"
    return RunFolderError.of("folder", folder, expected, fix)


def is_finished(job: JobSpec, folder: RunFolder) -> bool:
    """Whether there is nothing left to do for a job, by its folder."""
    if folder.has_result:
        return folder.result() is not None
    if job.command != "extract" or job.config["verify"] or job.config["repair"]:
        return False
    return folder.is_recorded() and folder.status().get("state") == "finished" and Path(job.config["store"]).exists()
