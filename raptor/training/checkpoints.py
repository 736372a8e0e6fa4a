"""The checkpoint of a training: written atomically, sealed by a digest, bound to its run."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
import xxhash
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, Timer

from raptor.errors import ConfigError, ModelFileError, Unfinished
from raptor.runs.folder import RunFolder
from raptor.training.curves import begin, commit, pending_row
from raptor.utils import signals
from raptor.utils.files import atomic_write

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "last.ckpt"
AGREE_EVERY = 10  # steps between two agreements of several processes on whether to stop
RUN = "raptor"  # key of the run's identity in a checkpoint
SEAL = b"raptor:xxh3:"  # followed by 32 hexadecimal digits, as the comment of the zip file that torch writes
SEALED = len(SEAL) + 32
AFRESH = "delete it to start this run afresh"


class RunCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read those that are whole and of this run.

    Parameters
    ----------
    run
        The run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write one checkpoint."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda tmp_path: _save(checkpoint | {RUN: self.run.identity_record()}, tmp_path))

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read one checkpoint.

        Raises
        ------
        ModelFileError
            If it is damaged, or of another run.
        """
        sealed = check_seal(Path(path))
        try:
            checkpoint = super().load_checkpoint(path, *args, **kwargs)
        except Exception as error:  # a damaged pickle can end in any error
            raise _damaged(path, str(error)) from error
        record = checkpoint.pop(RUN, None)
        if record is not None:  # earlier releases wrote neither
            if not sealed:
                raise _damaged(path, "it has no digest")
            if differing := self.run.differences_from(record):
                expected = f"a checkpoint of this run ({differing})"
                raise ModelFileError.of("checkpoint", path, expected, AFRESH)
        return checkpoint


def _damaged(path: Any, reason: str) -> ModelFileError:
    return ModelFileError.of("checkpoint", path, f"a file that is not damaged ({reason})", AFRESH)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    torch.save(checkpoint, path)
    seal(path)


def seal(path: Path) -> None:
    """Add a digest of a zip file to it, as its comment."""
    with path.open("r+b") as file:
        file.seek(-2, 2)
        if file.read(2) != b"\0\0":
            raise ConfigError.of(
                "checkpoint", path, "a zip file without a comment (it has one already)", "seal it once"
            )
        file.seek(-2, 2)
        file.write(SEALED.to_bytes(2, "little"))
        file.flush()
        digest = _digest(path, path.stat().st_size)
        file.seek(0, 2)
        file.write(SEAL + digest)


def check_seal(path: Path) -> bool:
    """Check a file against its digest.

    Returns
    -------
    bool
        Whether it has one. Without one, the checksums of the zip file hold for its content.

    Raises
    ------
    ModelFileError
        If it is damaged.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SEALED))
        tail = file.read()
    if tail.startswith(SEAL):
        if _digest(path, path.stat().st_size - SEALED) != tail[len(SEAL) :]:
            raise _damaged(path, "its digest differs from that of its content")
        return True
    try:
        with zipfile.ZipFile(path) as content:
            wrong = content.testzip()
    except Exception as error:  # of a damaged directory, any error
        raise _damaged(path, str(error)) from error
    if wrong is not None:
        raise _damaged(path, f"the checksum of {wrong} differs")
    return False


def _digest(path: Path, size: int) -> bytes:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, 2**22))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest().encode()


class TimeLimit(Timer):
    """Measure the time of a training over its attempts, from ``trainer.max_time``.

    Lightning's own ends the training by ``should_stop``, which validates once more: a point of the curves that an
    undisturbed run does not have. :class:`LastCheckpoint` saves and ends it in its place.
    """

    @property
    def state_key(self) -> str:
        """Name in checkpoints: that of Lightning's class, as in those of earlier releases."""
        return Timer.__qualname__

    def on_fit_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the end to :class:`LastCheckpoint`."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave the end to :class:`LastCheckpoint`."""

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        left = self.time_remaining()
        return left is not None and left <= 0


class LastCheckpoint(Checkpoint):
    """Keep the state of the training in one file, renewed every so many steps and after each validation.

    Where a validation follows a step, the file is written after it: a run that is killed in between repeats the step
    and the validation, and loses no point of its curves. The file is also written when a signal tells the process to
    end (:mod:`raptor.utils.signals`), or ``trainer.max_time`` is over, and the training then ends. Loggers write down
    their rows before.

    Parameters
    ----------
    every_n_steps
        Optimiser steps between two checkpoints.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ConfigError.of(
                "callbacks.checkpoint.every_n_steps", every_n_steps, "integer >= 1", "set it to such a value"
            )
        self.every_n_steps, self._saved, self._is_out_of_time = every_n_steps, 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare loggers and signals for an attempt."""
        self._saved = trainer.global_step
        begin(trainer.loggers, trainer.global_step)
        signals.defer_exit_until_saved()
        signals.reinstall_handlers()  # Lightning ends on SIGTERM before anything could be saved

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """End, if a signal requested it and the last step is saved."""
        self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End, if a signal requested it; there is nothing to save after the last step."""
        self._is_out_of_time = False
        self._stop(trainer)
        signals.exit_on_signal()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End at once by the next signal: nothing will be saved any more."""
        signals.exit_on_signal()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Save if enough steps have passed or the run has to stop, unless a validation follows."""
        validates = trainer.val_check_batch and (trainer.fit_loop.total_batch_idx + 1) % trainer.val_check_batch == 0
        validates = validates or trainer.should_stop  # a probe requests a validation after its last step
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps
        stops = self._has_to_stop(trainer)
        if (due or stops) and not (validates and trainer.enable_validation):
            self._save(trainer, pending_row(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation of the training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, None)

    def _has_to_stop(self, trainer: Trainer) -> bool:
        limits = _time_limits(trainer)
        over = any(limit.is_over for limit in limits) and trainer.global_step < trainer.max_steps
        if trainer.world_size == 1:
            self._is_out_of_time = over
            return over or signals.is_stop_requested()
        if trainer.global_step % AGREE_EVERY:  # saving concerns all processes at the same step; agreeing costs time
            return False
        ours = torch.tensor([float(signals.received() or 0), float(over)], device=trainer.strategy.root_device)
        signum, out_of_time = map(int, trainer.strategy.reduce(ours, reduce_op="max"))
        if signum:
            signals.follow(signum)
        self._is_out_of_time = out_of_time > 0
        return signum > 0 or self._is_out_of_time

    def _stop(self, trainer: Trainer) -> None:
        if self._saved != trainer.global_step:
            return
        if signals.is_stop_requested():
            log.info("saved after step %d: the same command continues", trainer.global_step)
            signals.stop()
        if self._is_out_of_time:
            step, steps = trainer.global_step, trainer.max_steps
            limit = max(limit._duration or 0 for limit in _time_limits(trainer))
            expected = f"time for all steps; it ended at step {step} of {steps}, which is saved"
            fix = "run the same command with a longer trainer.max_time, or null: it continues"
            raise Unfinished.of("trainer.max_time", f"{limit:.0f} s", expected, fix)

    def _save(self, trainer: Trainer, row: dict[str, Any] | None) -> None:
        # gradients that are being accumulated are in no checkpoint
        accumulating = (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if trainer.global_step != self._saved and not accumulating:
            self._saved = trainer.global_step
            commit(trainer.loggers, row)
            trainer.save_checkpoint(Path(trainer.default_root_dir) / CHECKPOINT, weights_only=False)  # optimiser too


def _time_limits(trainer: Trainer) -> list[TimeLimit]:
    return [callback for callback in trainer.callbacks if isinstance(callback, TimeLimit)]  # type: ignore[attr-defined]
