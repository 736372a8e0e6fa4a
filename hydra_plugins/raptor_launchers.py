"""``hydra/launcher=slurm`` and ``hydra/launcher=local``, as Hydra finds launchers: by this folder's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class _Launcher(Launcher):
    """Freeze the configuration of every job now, and hand all of them over at once."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launch a sweep; its jobs return nothing to Hydra, their results are in their folders."""
        from raptor.cli import sweeps
        from raptor.cli.logs import set_up_logging
        from raptor.launching.job import find_command
        from raptor.launching.plan import launch, launcher_options

        set_up_logging()
        name = self.config.hydra.job.name
        configs = []
        for i, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with sweeps.as_job(config, i) as resolved:
                find_command(name).parse(resolved)
                configs.append(resolved)
        launch(name, configs, launcher_options(self.config.hydra.launcher))
        return [JobReturn(overrides=list(o), status=JobStatus.COMPLETED) for o in job_overrides]


class Slurm(_Launcher):
    """Job arrays on SLURM; returns as soon as they are queued."""


class Local(_Launcher):
    """Processes on this machine; returns when all have ended."""
