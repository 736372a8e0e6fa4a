"""Options of the launchers: ``hydra/launcher=slurm`` and ``hydra/launcher=local``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from raptor.errors import ConfigError
from raptor.utils.options import Invalid, option, options

GPU = ("gpu", "cuda")  # Lightning's names of the accelerator
GPUS = re.compile(r"(?:[\w.-]+:)?(\d+)")  # SLURM's [TYPE:]NUMBER


@options
class SlurmOptions:
    """Job arrays on SLURM; the call returns as soon as they are queued."""

    partition: str | None = option("Partition; null is SLURM's default", default=None)
    account: str | None = option("Account; null is SLURM's default", default=None)
    qos: str | None = option("Quality of service; null is SLURM's default", default=None)
    constraint: str | None = option("Features that nodes must have, such as a100", default=None)
    timeout_min: int = option(
        "Time limit of a job, which is then saved, requeued and continued", default=240, unit="minutes", ge=1
    )
    max_num_timeout: int = option("How often a job may reach its time limit", default=10, ge=0)
    signal_delay_s: int = option("Time between SLURM's warning and the end", default=120, unit="seconds", ge=1)
    gpus_per_node: int | str = option("GPUs of a job on each node: a number, or TYPE:NUMBER such as a100:1", default=1)
    cpus_per_task: int = option("Cores of each process", default=8, ge=1)
    mem_gb: int | float | None = option("Memory of a job on each node; null is SLURM's default", default=None, gt=0)
    nodes: int | None = option("Nodes of a job; null takes trainer.num_nodes, which it must equal", default=None, ge=1)
    tasks_per_node: int | None = option(
        "Processes on each node; null takes trainer.devices, which it must equal", default=None, ge=1
    )
    array_parallelism: int = option("Jobs of one array that run at a time", default=256, ge=1)
    setup: list[str] = option("Shell lines before the job, such as 'module load cuda'", default=[])
    sbatch: dict[str, Any] = option(
        "Further options of sbatch by name, such as {reservation: mine}", default={}, open=True
    )
    snapshot: bool = option("Run a copy of the code as it was at submission", default=True)

    def __post_init__(self) -> None:
        if isinstance(self.gpus_per_node, str) and not GPUS.fullmatch(self.gpus_per_node):
            expected = "integer >= 0 or TYPE:NUMBER"
            raise Invalid("gpus_per_node", self.gpus_per_node, expected, "write a number of GPUs, such as 1 or a100:1")
        if self.num_gpus < 0:
            raise Invalid("gpus_per_node", self.gpus_per_node, "integer >= 0 or TYPE:NUMBER", "set it to 0 for no GPU")

    @property
    def num_gpus(self) -> int:
        """GPUs of a job on each node."""
        if isinstance(self.gpus_per_node, int):
            return self.gpus_per_node
        match = GPUS.fullmatch(self.gpus_per_node)
        return int(match[1]) if match else -1

    def shape(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Return nodes and processes on each node of a job.

        Parameters
        ----------
        config
            Configuration of the job.

        Raises
        ------
        ConfigError
            If SLURM would start another number of processes than the trainer waits for, or none could work.
        """
        trainer = config.get("trainer") or {}
        devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
        if not isinstance(devices, int) or devices < 1:
            expected = "integer >= 1: on SLURM a job has one process for each device"
            raise ConfigError.of("trainer.devices", devices, expected, "set trainer.devices to a number")
        for key, other, ours, theirs in (
            ("nodes", "trainer.num_nodes", self.nodes, nodes),
            ("tasks_per_node", "trainer.devices", self.tasks_per_node, devices),
        ):
            if ours is not None and ours != theirs:
                fix = f"set hydra.launcher.{key}=null"
                raise ConfigError.of(f"hydra.launcher.{key}", ours, f"the value of {other}, {theirs}", fix)
        if nodes * devices > 1 and str((config.get("task") or {}).get("name")).endswith("_probe"):
            fix = "set trainer.devices=1 trainer.num_nodes=1"
            raise ConfigError.of("trainer.devices", devices, "1: probes run in one process", fix)
        if trainer.get("accelerator") in GPU and self.num_gpus < devices:
            expected = f"at least trainer.devices, {devices}"
            fix = f"set hydra.launcher.gpus_per_node={devices}"
            raise ConfigError.of("hydra.launcher.gpus_per_node", self.gpus_per_node, expected, fix)
        return nodes, devices

    def leaves_gpus_idle(self, config: Mapping[str, Any]) -> bool:
        """Whether a job would request GPUs and use none."""
        accelerator = (config.get("trainer") or {}).get("accelerator")
        return self.num_gpus > 0 and accelerator not in (None, "auto", *GPU)


@options
class LocalOptions:
    """Processes on this machine, several at a time; the call returns when all have ended."""

    jobs: int | None = option(
        "Jobs at a time; null is one for each GPU, or else one for each core, four at most", default=None, ge=1
    )
    threads: int | None = option("Threads of each job; null shares the cores among the jobs", default=None, ge=1)
    gpus: list[int | str] | None = option("GPUs that jobs get, one each; null is all that are visible", default=None)
    snapshot: bool = option("Run a copy of the code as it was when the jobs were started", default=True)
