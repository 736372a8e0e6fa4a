"""Lightning callbacks and plugins that tie a training to its run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from raptor.errors import ConfigError, ModelFileError
from raptor.models.io import DESCRIPTION
from raptor.runs.folder import RunFolder
from raptor.training.interface import Trainable
from raptor.training.loggers import commit
from raptor.utils import signals
from raptor.utils.files import write_aside

CHECKPOINT = Path("checkpoints") / "last.ckpt"
SNAPSHOTS = "snapshots"
AGREE_EVERY = 10  # steps between two agreements of several processes on whether to stop


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints aside, flush, rename: a cut-off write never replaces a good one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write one checkpoint."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_aside(target, lambda aside: torch.save(checkpoint, aside))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read one checkpoint.

        Raises
        ------
        ModelFileError
            If it is damaged.
        """
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except Exception as error:  # a damaged pickle can end in any error
            raise ModelFileError(f"{path} is damaged ({error}): delete it to start this run afresh") from error


class LastCheckpoint(Checkpoint):
    """Keep the state of the training in one file, renewed every so many steps and after each validation.

    Where a validation follows a step, the file is written after it: a run that is killed in between repeats
    the step and the validation, and loses no point of its curves. It is also written when SLURM asks the job to
    stop (:mod:`raptor.utils.signals`), which it then does, and on SIGTERM.

    Parameters
    ----------
    every_n_steps
        Optimiser steps between two checkpoints.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"callbacks.checkpoint.every_n_steps={every_n_steps} starts at 1")
        self.every_n_steps, self._saved = every_n_steps, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is saved already."""
        self._saved = trainer.global_step
        signals.save_first(True)
        signals.take_over()  # Lightning ends on SIGTERM before anything could be saved

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Stop, if asked to: what was saved after the last step has been logged by now."""
        self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is nothing to save after the last step."""
        self._stop(trainer)
        signals.save_first(False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Nobody will save any more."""
        signals.save_first(False)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save if enough steps have passed or the run has to stop, unless a validation follows."""
        validates = trainer.val_check_batch and (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch == 0
        validates = validates or trainer.should_stop  # a probe asks for a validation after its last step
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps
        stops = self._has_to_stop(trainer)
        if (due or stops) and not (validates and trainer.enable_validation):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation of the training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def _has_to_stop(self, trainer: Trainer) -> bool:
        asked = signals.asked() or trainer.received_sigterm
        if trainer.world_size == 1:
            return asked
        # saving is a matter for all processes at the same step, and asking them all costs time
        return trainer.global_step % AGREE_EVERY == 0 and trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _stop(self, trainer: Trainer) -> None:
        if signals.asked() and self._saved == trainer.global_step:
            signals.stop()

    def _save(self, trainer: Trainer) -> None:
        # gradients that are being accumulated are in no checkpoint
        accumulating = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if trainer.global_step != self._saved and not accumulating:
            self._saved = trainer.global_step
            commit(trainer.loggers, trainer.global_step)
            trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINT, weights_only=False)  # optimiser too


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
        If they are no whole numbers above 0.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        if not all(isinstance(step, int) and step > 0 for step in steps):
            raise ConfigError(f"callbacks.snapshots.steps={list(steps)} must be whole numbers above 0")
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
