"""What every task shares: optimiser, schedule, clipping, seeding, and checkpoints without frozen weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from raptor.errors import ConfigError, ModelFileError
from raptor.models.io import save, state_fingerprint
from raptor.utils.seeding import derive_seed


class Task(LightningModule):
    """Base of all tasks.

    Parameters
    ----------
    name
        Name of the task, for results.
    optimizer
        Called with the trainable parameters.
    schedule
        Called with ``(optimizer, total_steps=...)``, or None for a constant rate.
    seed
        Seed of everything random in a step.

    Attributes
    ----------
    one_process
        Whether the task cannot run in several processes.
    """

    one_process: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: Callable[..., LRScheduler] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.name, self.seed = name, seed
        self._optimizer, self._schedule = optimizer, schedule

    @property
    @abstractmethod
    def product(self) -> nn.Module:
        """Model that the task makes and saves."""

    @property
    def frozen(self) -> nn.Module | None:
        """Submodule that the task only reads; kept in eval mode and out of checkpoints."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Describe the product as plain data, for results."""

    def details(self) -> dict[str, Any]:
        """Return results of the last validation that are no single numbers, such as curves over layers."""
        return {}

    def clipped_groups(self) -> list[list[nn.Parameter]]:
        """Return groups of parameters whose gradients are clipped together."""
        return [[p for p in self.parameters() if p.requires_grad]]

    def parameter_groups(self) -> list[Any]:
        """Return what the optimiser is called with: parameters, or groups of them."""
        return [p for p in self.parameters() if p.requires_grad]

    def export(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the product as ``model.safetensors`` and ``model.json``."""
        save(self.product, folder, about)

    def configure_optimizers(self) -> Any:
        """Return the optimiser over the trainable parameters, and the schedule by step."""
        optimizer = self._optimizer(self.parameter_groups())
        if self._schedule is None:
            return optimizer
        schedule = self._schedule(optimizer, total_steps=self.trainer.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each group by its own norm.

        Lightning's own clipping refuses fused optimisers under bf16-mixed, where nothing needs unscaling.
        """
        if gradient_clip_algorithm not in (None, "norm"):
            key = "trainer.gradient_clip_algorithm"
            raise ConfigError.of(key, gradient_clip_algorithm, "norm", f"set {key}=norm")
        if gradient_clip_val:
            for group in self.clipped_groups():
                torch.nn.utils.clip_grad_norm_(group, float(gradient_clip_val))

    def train(self, mode: bool = True) -> Task:  # noqa: FBT001, FBT002 (torch's signature)
        """Set the mode of everything but the frozen part, which stays in eval mode."""
        super().train(mode)
        if self.frozen is not None:
            self.frozen.eval()
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what the step draws (stochastic depth, input noise) from the seed, the step and the process."""
        step = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        torch.manual_seed(derive_seed(self.seed, "step", step, self.global_rank))

    @cached_property
    def _frozen_sha256(self) -> str:
        return state_fingerprint(self.frozen) if self.frozen is not None else ""

    def _frozen_keys(self) -> dict[str, Tensor]:
        if self.frozen is None:
            return {}
        names = {id(tensor) for tensor in self.frozen.state_dict(keep_vars=True).values()}
        return {key: tensor for key, tensor in self.state_dict(keep_vars=True).items() if id(tensor) in names}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace the frozen weights in a checkpoint by their digest."""
        for key in self._frozen_keys():
            del checkpoint["state_dict"][key]
        checkpoint["frozen_sha256"] = self._frozen_sha256

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen weights back, once they are known to be the same.

        Raises
        ------
        ModelFileError
            If the checkpoint was made with other frozen weights.
        """
        if checkpoint.get("frozen_sha256") != self._frozen_sha256:
            expected = "the frozen weights that the checkpoint of this run was written with"
            fix = "bring those weights back, or start afresh under another name=..."
            raise ModelFileError.of("frozen_sha256", self._frozen_sha256, expected, fix)
        checkpoint["state_dict"].update({k: t.detach() for k, t in self._frozen_keys().items()})
