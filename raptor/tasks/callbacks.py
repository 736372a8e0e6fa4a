"""Lightning callbacks and plugins that tie a training to its run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from raptor.files import write_aside
from raptor.results.run import RunFolder

CHECKPOINT = Path("checkpoints") / "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints aside, flush, rename: a cut-off write never replaces a good one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write one checkpoint."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_aside(target, lambda aside: torch.save(checkpoint, aside))


class LastCheckpoint(ModelCheckpoint):
    """Keep the state of the training in one file, renewed every so many steps.

    Parameters
    ----------
    every_n_steps
        Optimiser steps between two checkpoints.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        super().__init__(
            filename=CHECKPOINT.stem,
            every_n_train_steps=every_n_steps,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the file into the run folder."""
        self.dirpath = str(Path(trainer.default_root_dir) / CHECKPOINT.parent)
        super().setup(trainer, pl_module, stage)


class RunStatus(Callback):
    """Keep the status of the run folder up to date, and its metrics no older than its checkpoint.

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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush the metrics, so that a resume leaves no gap in them."""
        for logger in trainer.loggers:
            logger.save()
