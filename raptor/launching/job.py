"""A job as it was submitted: a command and its resolved configuration, which nothing can change any more."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from raptor.runs import provenance
from raptor.runs.folder import RunFolder
from raptor.runs.status import LOCK
from raptor.utils import distributed, signals
from raptor.utils.locks import is_held

if TYPE_CHECKING:
    from raptor.cli.command import Command

log = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between two looks at a lock


@dataclass
class JobSpec:
    """What a launcher hands over, and a process elsewhere runs.

    Parameters
    ----------
    command
        Name of a command: ``train`` for ``python -m raptor.train``.
    config
        Its configuration, without interpolations.
    code
        Of :func:`raptor.runs.provenance.code` at submission.
    grace
        Seconds between SLURM's warning and the end.
    about
        What the table of :mod:`raptor.status` shows of the run.
    """

    command: str
    config: dict[str, Any]
    code: dict[str, Any]
    grace: float = 90.0
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, command: str, config: DictConfig, code: dict[str, Any], grace: float = 90.0) -> JobSpec:
        """Freeze a configuration, with the name of its folder: what that depends on may change until the job runs."""
        plain: Any = OmegaConf.to_container(config, resolve=True)
        folder = find_command(command).folder(config)
        if plain.get("name") is None and folder.named:
            plain["name"] = folder.path.name
        return cls(command, plain, code, grace, folder.about)

    @property
    def entry(self) -> Command[Any]:
        """The command."""
        return find_command(self.command)

    @property
    def node(self) -> DictConfig:
        """The configuration."""
        return OmegaConf.create(self.config)

    def folder(self) -> RunFolder:
        """Return the folder that keeps the job's status."""
        folder = self.entry.folder(self.node)
        folder.submitted_with(self.code, self.about)
        return folder

    def __call__(self) -> None:
        """Run the job in this process, which belongs to it alone."""
        distributed.claim_ranks()
        if provenance.slurm():
            signals.install(self.grace, distributed.rank())
        folder = self.folder()
        _wait_for_former_attempt(folder)
        try:
            self.entry.run(self.node, folder)
        except (Exception, KeyboardInterrupt) as error:
            folder.fail(error)
            raise
        except SystemExit as stop:
            sys.exit(143 if stop.code is None else stop.code)  # Lightning ends on SIGTERM without a code

    def checkpoint(self) -> Any:
        """Return what submitit puts back into the queue: the same job, which finds its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def write(self, path: Path) -> None:
        """Write the job to a file for ``python -m raptor.launching.job FILE``."""
        path.write_text(yaml.safe_dump(asdict(self)), encoding="utf-8")  # JSON has no infinity, no numbers as keys

    @classmethod
    def read(cls, path: Path) -> JobSpec:
        """Read a job from the file that :meth:`write` wrote."""
        return cls(**yaml.safe_load(path.read_text(encoding="utf-8")))


def _wait_for_former_attempt(folder: RunFolder) -> None:
    """Wait for a process that outlived the daemon of its node, where SLURM started the job again on another node."""
    ours, is_logged = provenance.slurm(), False
    while is_held(folder.path / LOCK):
        theirs = folder.status().get("slurm") or {}
        if not ours or theirs.get("job") != ours["job"] or theirs.get("restarts", 0) >= ours["restarts"]:
            return
        if not is_logged:
            log.warning("%s: its former attempt runs on, on node %s; waiting for its end", folder, theirs.get("node"))
            is_logged = True
        time.sleep(PAUSE)


FrozenJob = JobSpec  # its former name, in the files of jobs that wait in SLURM's queue


def find_command(name: str) -> Command[Any]:
    """Return a command by its name: ``raptor.train`` for ``train``."""
    return importlib.import_module(f"raptor.{name}").main


if __name__ == "__main__":
    from raptor.launching.job import JobSpec as Imported  # not that of __main__

    try:
        Imported.read(Path(sys.argv[1]))()
    except SystemExit:
        if signals.is_stop_requested():
            signals.leave(signals.exit_code() or 1)
        raise
