"""Time of a training step of K stacked heads against that of one head, on a frozen backbone that runs in the step.

``python benchmarks/probes.py`` times the three probes on the miniature's ViT and picture sizes, on the CPU, one head
and K heads in turn; the pictures are noise, since time does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Callback
from rich.console import Console
from rich.table import Table
from torch.utils.data import TensorDataset

from raptor.data.module import ImageData
from raptor.files import CONFIGS
from raptor.tasks.build import depth_probe, linear_probe, segmentation_probe

BUILD: dict[str, Any] = {
    "mini_imagenet": linear_probe,
    "mini_ade20k": segmentation_probe,
    "mini_nyuv2": depth_probe,
}
WARM = 3  # steps that are not counted


class Noise(ImageData):
    """Pictures and targets of the right shapes."""

    def __init__(self, target: str, classes: int, shape: tuple[int, ...], batch: int) -> None:
        super().__init__(name="noise", batch_size=batch)
        self.target, self._classes, self.shape = target, classes, shape

    @property
    def num_classes(self) -> int:
        """As given."""
        return self._classes

    def datasets(self, input_shape: tuple[int, int, int]) -> Any:
        """One batch, over and over."""
        images = torch.randint(0, 256, (self.batch_size, *input_shape), dtype=torch.uint8)
        targets = torch.rand(self.batch_size, *self.shape) * (self._classes or 10)
        data = TensorDataset(images, targets if self.target == "depth" else targets.long())
        return data, data


class StepTimes(Callback):
    """Seconds of each training step: forward, backward, clipping and update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Begin."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """End."""
        self.seconds.append(time.perf_counter() - self._begin)


def step_seconds(protocol: str, heads: int, steps: int, exact: bool = False) -> float:
    """Median time of a training step; ``exact`` leaves out what the miniature saves in the loss."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", [f"protocol={protocol}", "teacher=mini_vit", "recipe=mini"])
    teacher = instantiate(config.teacher, _convert_="all")
    shape: tuple[int, ...] = {"mini_imagenet": (), "mini_ade20k": (1, 96, 96), "mini_nyuv2": (1, 60, 80)}[protocol]
    target = {"mini_imagenet": "class", "mini_ade20k": "labels", "mini_nyuv2": "depth"}[protocol]
    data = Noise(target, {"class": 20, "labels": 21, "depth": 0}[target], shape, config.data.batch_size)
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    data.steps = steps + WARM
    node: Any = OmegaConf.to_container(config.task, resolve=True)
    node |= {"loss_stride": 1, "upsample": 4} if exact else {}
    known = {
        "mini_imagenet": ["start"],
        "mini_ade20k": ["loss_stride"],
        "mini_nyuv2": ["bins", "loss_stride", "upsample"],
    }
    options = {k: node[k] for k in ("name", *known[protocol]) if k in node}
    build = instantiate({"optimizer": config.task.optimizer, "schedule": config.task.schedule}, _convert_="all")
    task = BUILD[protocol](
        teacher=teacher,
        data=data,
        source=instantiate(config.activations),
        surrogate=None,
        seed=0,
        cache=False,
        selection=["official"],
        learning_rates=[10 ** (-2 - i / 4) for i in range(heads)],
        **options,
        **build,
    )
    times = StepTimes()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_steps=data.steps,
        max_epochs=-1,
        accelerator="cpu",
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        callbacks=[times],
        **quiet,
    )
    trainer.fit(task, datamodule=data)
    return statistics.median(times.seconds[WARM:])


def main() -> None:
    """Print one row for each probe and number of heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, nargs="+", default=[2, 8], help="how many in one pass (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="that are timed (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of one head and many, in turn (%(default)s)")
    parser.add_argument(
        "--exact", action="store_true", help="count all pixels in the loss, as the paper's protocols do"
    )
    arguments = parser.parse_args()
    table = Table("probe", "batch", "heads", "one head (ms)", "all heads (ms)", "ratio", "of separate runs")
    for protocol in BUILD:
        seconds = [
            [step_seconds(protocol, heads, arguments.steps, arguments.exact) for heads in (1, *arguments.heads)]
            for _ in range(arguments.repeats)
        ]
        one, *many = (statistics.median(times) for times in zip(*seconds, strict=True))
        batch = {"mini_imagenet": 64, "mini_ade20k": 16, "mini_nyuv2": 16}[protocol]
        for i, (heads, all_of_them) in enumerate(zip(arguments.heads, many, strict=True), start=1):
            ratio = statistics.median(times[i] / times[0] for times in seconds)
            cells = (f"{1e3 * one:.0f}", f"{1e3 * all_of_them:.0f}", f"{ratio:.2f}", f"{ratio / heads:.2f}")
            table.add_row(protocol, str(batch), str(heads), *cells)
    console = Console(width=120)
    console.print(table)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}; {arguments.repeats} rounds in turn")


if __name__ == "__main__":
    main()
