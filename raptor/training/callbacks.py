"""Lightning callbacks and plugins that tie a training to its run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer

from raptor.errors import ConfigError
from raptor.models.io import DESCRIPTION
from raptor.runs.folder import RunFolder
from raptor.training.interface import Trainable

SNAPSHOTS = "snapshots"


class Snapshots(Callback):
    """Export the model at chosen steps, so that what it had learned by then can be probed later.

    Each goes to ``snapshots/<step>`` in the run folder, as :func:`raptor.load` reads it.

    Parameters
    ----------
    steps
        Optimiser steps after which to export.

    Raises
    ------
    ConfigError
        If they are no positive integers.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        if not all(isinstance(step, int) and step > 0 for step in steps):
            raise ConfigError.of("callbacks.snapshots.steps", list(steps), "integers >= 1", "remove the others")
        self.steps = set(steps)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Export, if this is one of the steps."""
        step = trainer.global_step
        folder = Path(trainer.default_root_dir) / SNAPSHOTS / str(step)
        if trainer.is_global_zero and step in self.steps and not (folder / DESCRIPTION).is_file():
            cast(Trainable, pl_module).export(folder, about={"task": cast(Trainable, pl_module).name, "step": step})


class RunStatus(Callback):
    """Keep the status of the run folder up to date.

    Parameters
    ----------
    run
        The run folder.
    seconds
        Least time between two updates.
    """

    def __init__(self, run: RunFolder, seconds: float = 2.0) -> None:
        self.run, self.seconds = run, seconds
        self._last = self._begin = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the training begins."""
        self._begin, self._first_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Write step, total and speed, now and then."""
        now = time.monotonic()
        if now - self._last < self.seconds:
            return
        self._last = now
        speed = (trainer.global_step - self._first_step) / (now - self._begin)
        self.run.update(step=trainer.global_step, total=trainer.max_steps, steps_per_second=round(speed, 2))
