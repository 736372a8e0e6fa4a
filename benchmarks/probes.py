"""Compare K stacked heads in one pass with K runs, on a frozen backbone in the step.

The three probes on the miniature's ViT and picture sizes, on the CPU, one head and K heads in turn; the pictures are
noise, since time does not depend on them.
"""

from __future__ import annotations

import statistics
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import TensorDataset

from benchmarks.configuration import train_config
from benchmarks.measure import Options, Row, StepTimes
from raptor.data.module import ImageData
from raptor.tasks.context import Context
from raptor.train import main

PROTOCOLS = ("mini_imagenet", "mini_ade20k", "mini_nyuv2")
WARM = 3  # steps that are not counted
STEPS, HEADS, DENSE = 15, 8, ("mini_ade20k", "mini_nyuv2")


class Noise(ImageData):
    """Pictures and targets of the right shapes."""

    def __init__(self, target: str, classes: int, shape: tuple[int, ...], batch: int) -> None:
        super().__init__(name="noise", batch_size=batch)
        self.target, self._classes, self.shape = target, classes, shape

    @property
    def num_classes(self) -> int:
        """Return the number as given."""
        return self._classes

    def datasets(self, input_shape: tuple[int, int, int]) -> Any:
        """Make data sets of one batch."""
        images = torch.randint(0, 256, (self.batch_size, *input_shape), dtype=torch.uint8)
        targets = torch.rand(self.batch_size, *self.shape) * (self._classes or 10)
        data = TensorDataset(images, targets if self.target == "depth" else targets.long())
        return data, data


def step_seconds(protocol: str, heads: int, steps: int, *, exact: bool = False) -> float:
    """Measure the median training step; ``exact`` counts every pixel in the loss."""
    rates = ",".join(str(10 ** (-2 - i / 4)) for i in range(heads))
    every_pixel = ["task.loss_stride=1", *(["task.upsample=4"] if protocol == "mini_nyuv2" else [])] if exact else []
    config = train_config(
        *(f"protocol={protocol}", "teacher=mini_vit", "teacher.weights=null", "recipe=mini", "task.cache=false"),
        *("task.selection=[official]", f"task.learning_rates=[{rates}]", "task.backbone=null", *every_pixel),
    )
    job = main.parse(config)
    teacher = job.teacher.build()
    shape: tuple[int, ...] = {"mini_imagenet": (), "mini_ade20k": (1, 96, 96), "mini_nyuv2": (1, 60, 80)}[protocol]
    target = {"mini_imagenet": "class", "mini_ade20k": "labels", "mini_nyuv2": "depth"}[protocol]
    data = Noise(target, {"class": 20, "labels": 21, "depth": 0}[target], shape, config.data.batch_size)
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    task = job.task.build(Context(teacher, data, job.activations.build(), job.surrogate, seed=0))
    times = StepTimes()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_steps=steps + WARM,
        max_epochs=-1,
        accelerator="cpu",
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        callbacks=[times],
        **quiet,
    )
    trainer.fit(task, datamodule=data)
    return times.median(WARM)


def run(options: Options) -> list[Row]:
    """Compare one head with many, with the miniature's loss and with every pixel."""
    steps, rows = (2 if options.quick else STEPS), []
    for exact in (False, True):
        for protocol in PROTOCOLS if not exact else DENSE:
            pairs = [
                [step_seconds(protocol, heads, steps, exact=exact) for heads in (1, HEADS)]
                for _ in range(options.rounds)
            ]
            one, many = (statistics.median(times) for times in zip(*pairs, strict=True))
            gain = statistics.median(HEADS * first / second for first, second in pairs)
            note = f"{many / one:.2f} times one head" + (", every pixel in the loss" if exact else "")
            rows.append(
                Row(f"{protocol}, {HEADS} heads", f"{HEADS} runs", 1e3 * many, 1e3 * HEADS * one, "ms", gain, note)
            )
    return rows
