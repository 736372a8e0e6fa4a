"""Submitting jobs to SLURM by submitit, and asking SLURM about them."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError, LaunchError
from raptor.launching.job import FrozenJob

log = logging.getLogger(__name__)

SETTLE = 90.0  # seconds, for jobs that are ending


@dataclass
class Slurm:
    """What is asked of SLURM: ``hydra/launcher=slurm``.

    Parameters
    ----------
    partition, account, qos, constraint
        Of the site; None leaves them to SLURM.
    timeout_min
        Minutes that a job may run before it is saved, requeued and continued.
    max_num_timeout
        How often that may happen to a job.
    signal_delay_s
        Seconds between SLURM's warning and the end of the time.
    gpus_per_node, cpus_per_task, mem_gb
        Of one job.
    nodes, tasks_per_node
        None takes ``trainer.num_nodes`` and ``trainer.devices``, which they must equal.
    array_parallelism
        Jobs of one array that run at a time.
    setup
        Shell lines before the job, such as ``module load cuda``.
    sbatch
        Further options of sbatch by name, such as ``{reservation: mine}``.
    snapshot
        Whether jobs run a copy of the code as it was at submission.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    timeout_min: int = 240
    max_num_timeout: int = 10
    signal_delay_s: int = 120
    gpus_per_node: int = 1
    cpus_per_task: int = 8
    mem_gb: float | None = None
    nodes: int | None = None
    tasks_per_node: int | None = None
    array_parallelism: int = 256
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    snapshot: bool = True

    def __post_init__(self) -> None:
        for key in ("timeout_min", "signal_delay_s", "cpus_per_task", "array_parallelism"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 1:
                raise ConfigError(f"hydra.launcher.{key}={getattr(self, key)} must be a whole number above 0")
        for key in ("max_num_timeout", "gpus_per_node"):
            if not isinstance(getattr(self, key), int) or getattr(self, key) < 0:
                raise ConfigError(f"hydra.launcher.{key}={getattr(self, key)} must be a whole number, 0 or more")

    def shape(self, job: FrozenJob) -> tuple[int, int]:
        """Nodes and tasks a node of a job.

        Raises
        ------
        ConfigError
            If SLURM was asked for another number of processes than the trainer will wait for, or none could work.
        """
        trainer = job.config.get("trainer") or {}
        devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
        if not isinstance(devices, int) or devices < 1:
            raise ConfigError(f"trainer.devices={devices}: say how many, a job on SLURM has a process for each")
        for key, ours, theirs in (("nodes", self.nodes, nodes), ("tasks_per_node", self.tasks_per_node, devices)):
            if ours is not None and ours != theirs:
                other = "trainer.num_nodes" if key == "nodes" else "trainer.devices"
                raise ConfigError(f"hydra.launcher.{key}={ours} must equal {other}={theirs}: leave it null")
        if nodes * devices > 1 and str((job.config.get("task") or {}).get("name")).endswith("_probe"):
            raise ConfigError(f"trainer.devices={devices}: probes run in one process")
        gpu = trainer.get("accelerator") in ("gpu", "cuda")
        if gpu and self.gpus_per_node < devices:
            raise ConfigError(
                f"trainer.devices={devices} on GPUs, but hydra.launcher.gpus_per_node={self.gpus_per_node}: set it to "
                f"{devices}"
            )
        return nodes, devices

    def idle_gpus(self, job: FrozenJob) -> bool:
        """Whether a job would leave its GPUs idle."""
        trainer = job.config.get("trainer") or {}
        return bool(self.gpus_per_node) and trainer.get("accelerator", "gpu") not in ("gpu", "cuda", "auto")


def submit(jobs: Sequence[FrozenJob], options: Slurm, name: str, folder: Path, after: Sequence[str] = ()) -> list[str]:
    """Submit jobs as one array, to begin when others have ended, however they ended.

    Parameters
    ----------
    jobs
        All of the same shape.
    options
        What to ask for.
    name
        What SLURM calls them.
    folder
        For submitit's files, the logs among them, and the copy of the code; all nodes must see it.
    after
        Ids of jobs, or of whole arrays.

    Returns
    -------
    list of str
        Their ids, ``JOB`` or ``ARRAY_TASK``.

    Raises
    ------
    LaunchError
        If there is no SLURM here, or it refuses; nothing is queued then.
    """
    import submitit

    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise LaunchError("hydra/launcher=slurm: no sbatch here; call it on the cluster, or take hydra/launcher=local")
    (nodes, tasks), *others = {options.shape(job) for job in jobs}
    if others:
        raise ConfigError("jobs of one sweep must have the same trainer.devices and trainer.num_nodes")
    if idle := sum(options.idle_gpus(job) for job in jobs):
        log.warning(
            "%d jobs of %s run on the CPU, but hydra.launcher.gpus_per_node=%d asks for GPUs: add trainer=gpu_bf16, "
            "or set it to 0",
            *(idle, name, options.gpus_per_node),
        )
    executor = submitit.SlurmExecutor(folder, max_num_timeout=options.max_num_timeout)
    asked = {
        "job_name": name,
        "time": options.timeout_min,
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "gpus_per_node": options.gpus_per_node or None,
        "cpus_per_task": options.cpus_per_task,
        "mem": None if options.mem_gb is None else f"{round(1024 * options.mem_gb)}M",
        "signal_delay_s": options.signal_delay_s,
        "array_parallelism": options.array_parallelism,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        **{key: getattr(options, key) for key in ("partition", "account", "qos", "constraint")},
    }
    exported = {**environment(folder, options.snapshot), "OMP_NUM_THREADS": str(options.cpus_per_task)}
    lines = [f"export {key}={shlex.quote(value)}" for key, value in exported.items()]
    executor.update_parameters(
        **{key: value for key, value in asked.items() if value is not None},
        setup=[*options.setup, *lines],
        # steps do not inherit the cores from SLURM 22.05 on; a process that fails must not leave the others waiting
        srun_args=["--cpus-per-task", str(options.cpus_per_task), "--kill-on-bad-exit=1"],
        additional_parameters={"requeue": True, **options.sbatch},
    )
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise LaunchError(f"SLURM refused {name}: {said.decode() if isinstance(said, bytes) else said}") from error
    return [job.job_id for job in submitted]


def environment(folder: Path, snapshot: bool) -> dict[str, str]:
    """What the processes of jobs need to find the code: a copy of it as it is now, or where it lies."""
    from raptor.launching.snapshot import package_copy
    from raptor.utils.files import PACKAGE

    first = package_copy(folder / "code") if snapshot else PACKAGE.parent
    # the folder of the call comes last: Python would put it first, before the copy
    paths = [str(first.resolve()), *filter(None, [os.environ.get("PYTHONPATH")]), str(Path.cwd())]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def states() -> Mapping[str, str] | None:
    """State of the user's jobs by id (``JOB`` or ``ARRAY_TASK``), ended ones for a while; None where nobody answers."""
    if shutil.which("squeue") is None:
        return None
    try:
        listed = subprocess.run(
            ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T"],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer: %s", error)
        return None
    return dict(line.split(maxsplit=1) for line in listed.splitlines() if " " in line)


def settled(ids: Collection[str]) -> Mapping[str, str]:
    """States, once none of these jobs is about to end any more.

    Raises
    ------
    LaunchError
        If SLURM does not answer: jobs that it may still run must not be submitted again.
    """
    end = time.monotonic() + SETTLE
    while True:
        found = states()
        if found is None:
            raise LaunchError("SLURM does not answer, and some of these jobs are in its queue: try again later")
        ending = [ident for ident in ids if found.get(ident) == "COMPLETING"]
        if not ending or time.monotonic() > end:
            return found
        log.info("%d jobs are ending", len(ending))
        time.sleep(2.0)


def wait_also(ids: Collection[str], after: Sequence[str]) -> None:
    """Let jobs that wait in the queue wait for others, too."""
    for ident in ids:
        command = ["scontrol", "update", f"JobId={ident}", f"Dependency=afterany:{':'.join(after)}"]
        changed = subprocess.run(command, capture_output=True, text=True, check=False)
        if changed.returncode:
            log.info("%s does not wait for what was submitted now: %s", ident, changed.stderr.strip())
