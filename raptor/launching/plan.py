"""Which jobs of a sweep there is still something to do for, and getting it done."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from raptor.errors import ConfigError, LaunchError, from_node
from raptor.launching import slurm
from raptor.launching.job import FrozenJob
from raptor.launching.local import OUTPUT, Local, Pool, here
from raptor.launching.progress import Display
from raptor.launching.slurm import Slurm
from raptor.launching.stage import Stage
from raptor.runs.identity import check_inputs
from raptor.runs.provenance import code
from raptor.runs.status import in_slurm

log = logging.getLogger(__name__)

LAUNCHERS = {"hydra_plugins.raptor_launchers.Slurm": Slurm, "hydra_plugins.raptor_launchers.Local": Local}


def sort_all(stages: Sequence[Stage]) -> None:
    """Sort all stages by one look at SLURM's queue; see :meth:`Stage.sort`.

    Raises
    ------
    LaunchError
        If SLURM has some of the jobs, and does not answer.
    """
    statuses = [job.folder().status() for stage in stages for job in stage.jobs]
    known = [status for status in statuses if in_slurm(status) and "job" in status["slurm"]]
    queue: Mapping[str, str] = {}
    if any(status["state"] in ("queued", "running", "preempted") for status in known):
        queue = slurm.settled({status["slurm"]["job"] for status in known})
    elif known:
        queue = slurm.states() or {}  # ended, as far as they know; where there is no SLURM, nobody continues them
    for stage in stages:
        stage.sort(queue)


def frozen(name: str, configs: Sequence[DictConfig], options: Slurm | Local) -> list[FrozenJob]:
    """Freeze the jobs of a sweep."""
    now, grace = code(), float(getattr(options, "signal_delay_s", 90))
    return [FrozenJob.of(name, config, now, grace) for config in configs]


def launcher_options(node: Any) -> Slurm | Local:
    """Options from the node ``hydra.launcher``; Hydra's own launcher stands for processes on this machine.

    Raises
    ------
    ConfigError
        If it is a launcher of somebody else's, or has an unknown key.
    """
    values: Any = OmegaConf.to_container(node, resolve=True)
    target = values.pop("_target_")
    if target.startswith("hydra._internal."):
        return Local()
    if target not in LAUNCHERS:
        raise ConfigError(f"hydra/launcher with {target}: choose slurm or local")
    return from_node(LAUNCHERS[target], values, "hydra.launcher")


def work_folder(job: FrozenJob) -> Path:
    """Folder for what launching needs: beside the runs of the study."""
    return Path(job.config["paths"]["runs"]) / ".launched"


def submit(stages: Sequence[Stage], options: Slurm) -> dict[str, list[str]]:
    """Queue what is to be done, each stage to begin when those before it have ended.

    Returns
    -------
    dict
        SLURM's ids of the new jobs by stage.
    """
    before: list[str] = []
    new: list[str] = []
    submitted = {}
    for job in (job for stage in stages for job in stage.to_run):
        options.shape(job)
    for stage in stages:
        ids: list[str] = []
        if new:
            slurm.wait_also(stage.under_way, before)
        if stage.to_run:
            folders = [job.folder() for job in stage.to_run]
            work = work_folder(stage.to_run[0]) / "slurm"
            try:
                for folder, job in zip(folders, stage.to_run, strict=True):
                    folder.enqueue(job.code)
                ids = slurm.submit(stage.to_run, options, stage.name, work, list(dict.fromkeys(before)))
            except BaseException as error:
                for folder in folders:
                    folder.fail(error)
                raise
            for folder, ident in zip(folders, ids, strict=True):
                folder.queued_as(slurm={"job": ident, "restarts": 0})
        submitted[stage.name] = ids
        new += ids
        before += [ident.split("_")[0] for ident in ids] + list(stage.under_way)
    return submitted


def run_here(stages: Sequence[Stage], options: Local) -> int:
    """Run what is to be done on this machine, stage by stage; returns how many jobs failed."""
    failed = 0
    first = next((stage.to_run[0] for stage in stages if stage.to_run), None)
    if first is None:
        return 0
    pool = Pool(options, work_folder(first) / "local")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends its jobs too
    for stage in stages:
        for job in stage.to_run:
            folder = job.folder()
            folder.enqueue(job.code)
            folder.queued_as(**here())
    with Display(stages) as display:
        for stage in stages:
            # by the size of the stage, not by what is left of it: another number of threads may round otherwise
            codes = pool.run(stage.to_run, options.threads_for(len(stage.jobs)), display.ended)
            failed += sum(code != 0 for code in codes)
    return failed


def launch(name: str, configs: Sequence[DictConfig], options: Slurm | Local) -> None:
    """Run the jobs of one sweep: ``-m`` with ``hydra/launcher=slurm|local``.

    Raises
    ------
    LaunchError
        If jobs on this machine failed; those of SLURM are asked for by ``python -m raptor.status``.
    """
    jobs = frozen(name, configs, options)
    stage = Stage(name, jobs)
    sort_all([stage])
    for job in stage.to_run:
        if job.folder().has_result:
            check_inputs(job.entry.parse(job.node))
    log.info(
        "%d jobs: %d finished, %d under way, %d to run",
        *map(len, (jobs, stage.finished, stage.under_way, stage.to_run)),
    )
    study = work_folder(jobs[0]).parent / str(jobs[0].config["study"])
    if isinstance(options, Slurm):
        ids = submit([stage], options)[name]
        if ids:
            log.info("submitted %s; python -m raptor.status %s shows how they do", _span(ids), study)
    elif failed := run_here([stage], options):
        raise LaunchError(
            f"{failed} of {len(stage.to_run)} jobs failed; python -m raptor.status {study} says why, and {OUTPUT} in "
            "their folders holds what they printed. The same command runs them again"
        )


def _span(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
