"""Which jobs of a sweep still have to run, and running them."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from raptor.errors import ConfigError, LaunchError
from raptor.launching import queue, slurm
from raptor.launching.job import JobSpec
from raptor.launching.local import NOT_STARTED, OUTPUT, Pool
from raptor.launching.options import LocalOptions, SlurmOptions
from raptor.launching.progress import Display
from raptor.launching.stage import Stage
from raptor.launching.workplace import CallFolder, work_folder
from raptor.runs.identity import check_inputs
from raptor.runs.provenance import code
from raptor.runs.status import in_slurm
from raptor.utils.options import TARGET, parse

log = logging.getLogger(__name__)

KINDS: dict[str, type[SlurmOptions] | type[LocalOptions]] = {
    "hydra_plugins.raptor_launchers.Slurm": SlurmOptions,
    "hydra_plugins.raptor_launchers.Local": LocalOptions,
}
LAST = 3.0  # seconds that a second signal leaves to jobs


def sort_all(stages: Sequence[Stage]) -> None:
    """Sort all stages by one look at SLURM's queue; see :meth:`Stage.sort`.

    Raises
    ------
    LaunchError
        If SLURM has some of the jobs, and does not answer.
    """
    statuses = [job.folder().status() for stage in stages for job in stage.jobs]
    known = [status for status in statuses if in_slurm(status) and "job" in status["slurm"]]
    states: Mapping[str, str] = {}
    if any(status["state"] in ("queued", "running", "preempted") for status in known):
        states = queue.settled({status["slurm"]["job"] for status in known})
    elif known:
        states = queue.states() or {}  # they have ended by their status; without a SLURM nothing restarts them
    for stage in stages:
        stage.sort(states)


def freeze(name: str, configs: Sequence[DictConfig], options: SlurmOptions | LocalOptions) -> list[JobSpec]:
    """Freeze the jobs of a sweep."""
    now, grace = code(), float(getattr(options, "signal_delay_s", 90))
    return [JobSpec.of(name, config, now, grace) for config in configs]


def launcher_options(node: Any) -> SlurmOptions | LocalOptions:
    """Return the options in the node ``hydra.launcher``; Hydra's own launcher stands for processes on this machine.

    Raises
    ------
    ConfigError
        If it is another launcher, or a key is unknown or has a value that does not fit.
    """
    values: Any = OmegaConf.to_container(node, resolve=True)
    target = values.pop(TARGET)
    if target.partition(".")[0] == "hydra":  # Hydra's own launcher runs jobs in this process
        return LocalOptions()
    if target not in KINDS:
        raise ConfigError.of(f"hydra.launcher.{TARGET}", target, "slurm or local", "set hydra/launcher=slurm or local")
    return parse(KINDS[target], values, "hydra.launcher")


def submit(stages: Sequence[Stage], options: SlurmOptions) -> dict[str, list[str]]:
    """Queue the jobs that have to run, each stage to begin when those before it have ended.

    Returns
    -------
    dict
        SLURM's ids of the new jobs by stage.
    """
    before: list[str] = []
    new: list[str] = []
    submitted = {}
    for job in (job for stage in stages for job in stage.to_run):
        options.shape(job.config)
    for stage in stages:
        ids: list[str] = []
        if new:
            queue.wait_also(stage.under_way, before)
        if stage.to_run:
            ids = _submit_stage(stage, options, before)
        submitted[stage.name] = ids
        new += ids
        before += [ident.split("_")[0] for ident in ids] + list(stage.under_way)
    return submitted


def _submit_stage(stage: Stage, options: SlurmOptions, before: Sequence[str]) -> list[str]:
    folders = [job.folder() for job in stage.to_run]
    with CallFolder(work_folder(stage.to_run[0].config) / "slurm") as call:
        try:
            for folder in folders:
                folder.enqueue(call.lock)
            ids = slurm.submit(stage.to_run, options, stage.name, call, list(dict.fromkeys(before)))
        except BaseException as error:
            for folder in folders:
                folder.fail(error)
            raise
        for folder, ident in zip(folders, ids, strict=True):
            folder.queued_as(ident)
    return ids


def run_here(stages: Sequence[Stage], options: LocalOptions) -> int:
    """Run the jobs on this machine, stage by stage.

    Returns
    -------
    int
        How many failed, or were stopped from outside.

    Raises
    ------
    SystemExit
        If this process was stopped by a signal; its jobs have ended by then, and record that they were interrupted.
    """
    failed = 0
    first = next((stage.to_run[0] for stage in stages if stage.to_run), None)
    if first is None:
        return 0
    with CallFolder(work_folder(first.config) / "local") as call:
        pool = Pool(options, call)
        for stage in stages:
            for job in stage.to_run:
                job.folder().enqueue(call.lock)
        with _handing_on(pool), Display(stages) as display:
            for stage in stages:
                # by the size of the stage, not by what is left of it: another number of threads may round otherwise
                codes = pool.run(stage.to_run, len(stage.jobs), display.end)
                failed += sum(code != 0 for code in codes)
                for job, code in zip(stage.to_run, codes, strict=True):
                    if code == NOT_STARTED:
                        job.folder().fail(KeyboardInterrupt("before it began"))
    if pool.stopped_by is not None:
        log.warning("stopped; the same command continues")
        sys.exit(128 + pool.stopped_by)
    return failed


@contextmanager
def _handing_on(pool: Pool) -> Iterator[None]:
    """Hand signals on to the jobs, which save; a second one ends them at once."""

    def hand_on(signum: int, frame: Any) -> None:
        again = pool.stopped_by is not None
        running = pool.stop(signal.SIGINT if again else signum)
        if again:
            threading.Timer(LAST, pool.kill).start()
        else:
            log.warning("%d jobs save and stop; Ctrl-C again stops them at once", running)

    signums = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    previous = {signum: signal.signal(signum, hand_on) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def launch(name: str, configs: Sequence[DictConfig], options: SlurmOptions | LocalOptions) -> None:
    """Run the jobs of one sweep: ``-m`` with ``hydra/launcher=slurm|local``.

    Raises
    ------
    LaunchError
        If jobs on this machine failed; ``python -m raptor.status`` lists those of SLURM.
    """
    jobs = freeze(name, configs, options)
    stage = Stage(name, jobs)
    sort_all([stage])
    for job in stage.to_run:
        if job.folder().has_result:
            check_inputs(job.entry.parse(job.node))
    log.info(
        "%d jobs: %d finished, %d under way, %d to run",
        *map(len, (jobs, stage.finished, stage.under_way, stage.to_run)),
    )
    study = Path(jobs[0].config["paths"]["runs"]) / str(jobs[0].config["study"])
    if isinstance(options, SlurmOptions):
        ids = submit([stage], options)[name]
        if ids:
            log.info("submitted %s; python -m raptor.status %s shows how they do", _span(ids), study)
    elif failed := run_here([stage], options):
        expected = f"all jobs to succeed ({failed} of {len(stage.to_run)} jobs failed)"
        fix = f"read python -m raptor.status {study} and {OUTPUT} in their folders, then give the same command again"
        raise LaunchError.of("study", study.name, expected, fix)


def _span(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
