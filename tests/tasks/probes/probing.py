"""Backbones whose tokens are known, data in memory, and a training without a run folder."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from raptor.data.module import ImageData
from raptor.models.tokens import TokenLayout
from raptor.tasks.probes.base import Probe

SIDE, PATCH = 16, 4
GRID = SIDE // PATCH
ADAM: dict[str, Any] = {
    "optimizer": lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.0),
    "schedule": None,
}


class Known(nn.Module):
    """A backbone whose patch tokens are a function of the image; the class token is their mean."""

    num_layers = 1
    grid = (GRID, GRID)
    input_shape = (1, SIDE, SIDE)
    layout = TokenLayout(1, 0, GRID * GRID)
    shell = SimpleNamespace(linear_head=None)

    def __init__(self, width: int, tokens: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.width, self.tokens = width, tokens

    def check_range(self, start: int, end: int | None) -> None: ...

    def forward(self, images_BCHW: Tensor, layer: int | None = None) -> Tensor:
        patches = self.tokens(images_BCHW[:, 0, ::PATCH, ::PATCH].flatten(1))
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)


def oracle(width: int) -> Any:
    """Tokens that say the grey value: one-hot."""
    return Known(width, lambda grey: nn.functional.one_hot(grey.round().long(), width).float())


def noise(width: int) -> Known:
    """Tokens that say nothing."""
    return Known(width, lambda grey: torch.randn(*grey.shape, width))


class Greys(ImageData):
    """Images whose pixels are the grey values 0, 1, 2, ..., and targets that follow from them."""

    def __init__(self, greys_BHW: Tensor, target: str, targets: Tensor, classes: int, **kwargs: Any) -> None:
        super().__init__(name="greys", eval_batch_size=16, **kwargs)
        self.target, self._classes = target, classes
        self.all = TensorDataset(greys_BHW[:, None].to(torch.uint8), targets)

    @property
    def num_classes(self) -> int:
        return self._classes

    def datasets(self, input_shape: tuple[int, int, int]) -> Any:
        half = len(self.all) // 2
        return TensorDataset(*self.all[:half]), TensorDataset(*self.all[half:])


def greys(target: str, targets: Tensor, images_BHW: Tensor, classes: int, **kwargs: Any) -> Greys:
    data = Greys(images_BHW, target, targets, classes, batch_size=16, **kwargs)
    data.prepare((1, SIDE, SIDE), (0.0,), (1 / 255,))  # normalised images are the grey values
    return data


def fit(task: Probe, data: ImageData, steps: int, interval: int = 10) -> dict[str, float]:
    """Train and judge; the metrics of the last validation."""
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        check_val_every_n_epoch=None,
        val_check_interval=interval,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        **options,
    )
    trainer.fit(task, datamodule=data)
    return dict(trainer.validate(task, datamodule=data, verbose=False)[0])
