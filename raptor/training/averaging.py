"""Exponential moving average of the trained weights."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from raptor.errors import ModelFileError


class WeightAverage(Callback):
    """Keep an average of the trained weights, which validations and the saved model take.

    After step n, ``average = d * average + (1 - d) * weights`` with d the decay (Polyak and Juditsky, 1992). The
    average lies in the checkpoint, so that a continued run has the same. Frozen weights and buffers are left alone.

    Parameters
    ----------
    decay
        Share of the average that a step keeps, 0 <= decay < 1.
    warmup
        Whether d is at most (1 + n) / (10 + n).
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.average: dict[str, Tensor] = {}
        self._step = 0
        self._weights: dict[str, Tensor] = {}  # those of the training, while the model has the average

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or with the average of the checkpoint."""
        device = pl_module.device
        if not self.average:
            self._step = trainer.global_step
            self.average = {name: p.detach().clone() for name, p in _trained(pl_module).items()}
        self.average = {name: tensor.to(device) for name, tensor in self.average.items()}
        if self.average.keys() != _trained(pl_module).keys():
            expected = "an average of the weights that are trained"
            raise ModelFileError.of("checkpoint", "average", expected, "delete it to start this run afresh")

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Update the average after an optimiser step."""
        if trainer.global_step == self._step:  # gradients are accumulated
            return
        self._step = n = trainer.global_step
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        for name, parameter in _trained(pl_module).items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the model, for good in the validation after the training."""
        if self.average and not trainer.sanity_checking:
            self._weights = {name: p.detach().clone() for name, p in _trained(pl_module).items()}
            _fill(pl_module, self.average)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights of the training back."""
        if trainer.state.fn == "fit" and self._weights:
            _fill(pl_module, self._weights)
            self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for the checkpoint."""
        return {"average": {name: tensor.cpu() for name, tensor in self.average.items()}, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self.average, self._step = dict(state_dict["average"]), state_dict["step"]


def _trained(module: LightningModule) -> dict[str, Tensor]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def _fill(module: LightningModule, values: dict[str, Tensor]) -> None:
    for name, parameter in _trained(module).items():
        parameter.copy_(values[name])
