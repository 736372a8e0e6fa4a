"""Loss and metrics must be finite numbers: a run with another one fails, and says where it began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from raptor.errors import NonFiniteError

DIVERGED = (
    "lower task.optimizer.lr or set trainer.gradient_clip_val; trainer.detect_anomaly=true names the first operation "
    "that is not finite"
)
NO_SAMPLES = "look for a diverged training, or for evaluation images of which none counts"


class FiniteNumbers(Callback):
    """Fail a training whose loss or metrics are not finite, naming the step and the key.

    The first step with such a loss is noted on the loss's device. The host reads the note where it waits for the device
    anyway: every ``trainer.log_every_n_steps`` steps, before a validation, and before anything is saved, so that no
    checkpoint holds diverged weights. Metrics are checked after each validation.

    Raises
    ------
    NonFiniteError
        From the hooks of Lightning; the run then ends as failed.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # first step whose loss is not finite; 0: none so far

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier training."""
        self._first = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Note whether the loss is finite; read the note when a row is logged."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            if self._first is None:
                self._first = torch.zeros((), dtype=torch.long, device=loss.device)
            bad = ~loss.detach().isfinite().all()
            self._first.masked_fill_(bad & (self._first == 0), max(1, trainer.global_step))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._check_loss(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the note before time is spent on a validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check_loss(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metrics of this validation."""
        metrics = {name: value for name, value in trainer.callback_metrics.items() if not name.startswith("train/")}
        for name in non_finite(metrics.items()):
            expected = f"a finite number; it is none after step {trainer.global_step}"
            raise NonFiniteError.of(name, float(metrics[name]), expected, NO_SAMPLES)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the note after the last step."""
        self._check_loss(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the note before the state of the training is written."""
        self._check_loss(trainer)

    def _check_loss(self, trainer: Trainer) -> None:
        first = 0 if self._first is None else int(self._first)
        if trainer.world_size > 1 and not trainer.strategy.reduce_boolean_decision(first > 0, all=False):
            return
        if first == 0 and trainer.world_size == 1:
            return
        losses = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
        name = next(iter(non_finite(losses.items())), "train/loss")
        began = f"began at step {first}" if first else f"was found at step {trainer.global_step}"
        value = float(losses.get(name, torch.nan))
        raise NonFiniteError.of(name, value, f"a finite loss at every step; this {began}", DIVERGED)


def non_finite(metrics: Iterable[tuple[str, Any]]) -> list[str]:
    """List the names of metrics that are NaN or infinite."""
    return [name for name, value in metrics if not torch.as_tensor(value).isfinite().all()]
