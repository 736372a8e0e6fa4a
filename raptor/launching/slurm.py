"""Submission of jobs to SLURM by submitit."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from raptor.errors import ConfigError, LaunchError
from raptor.launching.job import JobSpec
from raptor.launching.options import SlurmOptions
from raptor.launching.snapshot import copy_package
from raptor.launching.workplace import CallFolder
from raptor.utils.files import PACKAGE

log = logging.getLogger(__name__)


def submit(
    jobs: Sequence[JobSpec], options: SlurmOptions, name: str, call: CallFolder, after: Sequence[str] = ()
) -> list[str]:
    """Submit jobs as one array, to begin when others have ended, however they ended.

    Parameters
    ----------
    jobs
        All of the same shape.
    options
        Resources of a job.
    name
        What SLURM calls them.
    call
        Of this launcher. Its root keeps submitit's files, the logs among them, and the copy of the code; all nodes
        must see it.
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
        expected = "sbatch and srun on this machine"
        raise LaunchError.of("hydra/launcher", "slurm", expected, "call it on the cluster, or use hydra/launcher=local")
    (nodes, tasks), *others = {options.shape(job.config) for job in jobs}
    if others:
        expected = "the same for all jobs of a sweep"
        fix = "submit jobs of another shape by a call of their own"
        raise ConfigError.of("trainer.devices, trainer.num_nodes", [(nodes, tasks), *others], expected, fix)
    if idle := sum(options.leaves_gpus_idle(job.config) for job in jobs):
        log.warning(
            "%d jobs of %s run on the CPU, but hydra.launcher.gpus_per_node=%s requests GPUs: add trainer=gpu_bf16, "
            "or set it to 0",
            *(idle, name, options.gpus_per_node),
        )
    executor = submitit.SlurmExecutor(call.root, max_num_timeout=options.max_num_timeout)
    requested = {
        "job_name": name,
        "time": options.timeout_min,
        "nodes": nodes,
        "ntasks_per_node": tasks,
        "gpus_per_node": options.gpus_per_node if options.num_gpus else None,
        "cpus_per_task": options.cpus_per_task,
        "mem": None if options.mem_gb is None else f"{round(1024 * options.mem_gb)}M",
        "signal_delay_s": options.signal_delay_s,
        "array_parallelism": options.array_parallelism,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        **{key: getattr(options, key) for key in ("partition", "account", "qos", "constraint")},
    }
    exported = {**environment(call, snapshot=options.snapshot), "OMP_NUM_THREADS": str(options.cpus_per_task)}
    lines = [f"export {key}={shlex.quote(value)}" for key, value in exported.items()]
    executor.update_parameters(
        **{key: value for key, value in requested.items() if value is not None},
        setup=[*options.setup, *lines],
        # steps do not inherit the cores from SLURM 22.05 on; a process that fails must not leave the others waiting
        srun_args=["--cpus-per-task", str(options.cpus_per_task), "--kill-on-bad-exit=1"],
        additional_parameters={"requeue": True, **options.sbatch},
    )
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
        output = getattr(error, "stderr", None) or str(error)
        expected = f"options that SLURM accepts ({(output.decode() if isinstance(output, bytes) else output).strip()})"
        raise LaunchError.of("job", name, expected, "correct the options of hydra.launcher") from error
    return [job.job_id for job in submitted]


def environment(call: CallFolder, *, snapshot: bool) -> dict[str, str]:
    """Return what the processes of jobs need to find the code: a copy of it as it is now, or where it lies."""
    first = copy_package(call.root / "code", call.path) if snapshot else PACKAGE.parent
    # the folder of the call comes last: Python would put it first, before the copy
    paths = [str(first.resolve()), *filter(None, [os.environ.get("PYTHONPATH")]), str(Path.cwd())]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
