"""Compare data with compute: images per second of the loader, of stage 1, and of both together.

JPEG photographs of ImageNet's usual size are made in a temporary folder, few enough to stay in the page cache: disks
are not measured. Each end-to-end row is a training by Lightning that takes its layers from the teacher in the step
(pictures decoded, or from the pixel cache), from a store, or from memory, which is the floor: nothing but the step.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import RandomSampler

from benchmarks.configuration import command, train_options
from benchmarks.measure import Options, Row, StepTimes, synchronize
from benchmarks.operations import PHASES
from benchmarks.step import random_teacher
from raptor.data.module import ImageData
from raptor.data.sources import Activations, ActivationSource, Online
from raptor.models.io import save
from raptor.models.teacher import Teacher
from raptor.tasks.context import Context
from raptor.training.execution import Execution

WARM, PHASE = 2, list(PHASES[0])


class InMemory(ActivationSource):
    """Source of layers that are computed once, the same in every step."""

    def __init__(self) -> None:
        self._acts: Activations = {}

    def connect(self, data: Any, teacher: Teacher, layers: Any) -> None:
        """Connect to nothing."""

    def activations(self, teacher: Teacher, batch: Any, layers: Any) -> Activations:
        """Return the layers of the first batch."""
        self._acts = self._acts or Online().activations(teacher, batch, layers)
        return self._acts


class SameBatch:
    """Data set with one batch of pictures for every index: a feed without cost."""

    def __init__(self, data: ImageData) -> None:
        samples = [data.train_images[i] for i in range(data.batch_size)]
        images, targets = zip(*samples, strict=True)
        self.batch = (torch.stack(images), torch.stack([torch.as_tensor(target) for target in targets]))

    def __getitems__(self, draws: Any) -> Any:
        """Return the batch."""
        return self.batch


def write_pictures(root: Path, count: int, *, quick: bool) -> None:
    """Write JPEGs like photographs: smooth colours, some noise, 500 x 375 pixels, about 50 kB."""
    random = np.random.default_rng(0)
    size = (64, 48) if quick else (500, 375)
    for split, number in (("train", count), ("val", 2)):
        folder = root / split / "class"
        folder.mkdir(parents=True)
        for i in range(number):
            coarse = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            )
            noisy = np.asarray(coarse, np.int16) + random.normal(0, 8, (size[1], size[0], 3)).astype(np.int16)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.jpg", quality=85)


def train_seconds(
    overrides: list[str], steps: int, options: Options, source: ActivationSource | None = None, *, same: bool = False
) -> float:
    """Measure the median step of stage 1, data included; ``same`` repeats one batch."""
    trainer = "gpu_bf16" if options.device.type == "cuda" else "cpu"
    job = train_options(
        "task=distill", "task.teacher_forcing=0.0", f"surrogate.phases=[{PHASE}]", f"trainer={trainer}", *overrides
    )
    teacher, data = job.teacher.build(), job.data.build()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    if same:
        data.substitute("train", SameBatch(data))
        data.num_workers = 0
    task = job.task.build(Context(teacher, data, source or job.activations.build(), job.surrogate, seed=0))
    times = StepTimes()
    precision: Any = job.trainer.precision
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer_ = pl.Trainer(
        max_steps=steps + WARM,
        max_epochs=-1,
        accelerator=job.trainer.accelerator,
        devices=1,
        precision=precision,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        callbacks=[times, Execution(compile=job.trainer.compile)],
        use_distributed_sampler=False,
        **quiet,
    )
    trainer_.fit(task, datamodule=data)
    return times.median(WARM)


def loader_seconds(overrides: list[str], batches: int, device: torch.device | None = None) -> float:
    """Measure the mean time to the next batch, once the workers' first batches are used up.

    With a device: until the normalised images lie on it.
    """
    job = train_options(*overrides)
    data, teacher = job.data.build(), job.teacher.build()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    ahead = 1 + 2 * data.num_workers  # that are made before the first is asked for
    batches = max(batches, 2 * ahead)
    draws = RandomSampler(data.train_images, replacement=True, num_samples=(ahead + batches) * data.batch_size)
    iterator = iter(data.loader(data.train_images, batch_size=data.batch_size, sampler=draws))
    for _ in range(ahead):
        next(iterator)
    begin = time.perf_counter()
    for images, *_ in iterator:
        if device is not None:
            data.normalize(images.to(device, non_blocking=True))
    if device is not None:
        synchronize(device)
    return (time.perf_counter() - begin) / batches


def prepare(folder: Path, options: Options, count: int, *, batch: int, workers: int) -> list[str]:
    """Write pictures and a ViT-B/14 with random weights; return the overrides that choose them."""
    write_pictures(folder / "pictures", count, quick=options.quick)
    teacher = random_teacher(options)
    save(teacher.cpu(), folder / "teacher", {})
    vit = [f"+teacher.options.{k}={v}" for k, v in teacher.spec.options.items() if k not in ("img_size", "num_classes")]
    return [
        "teacher=timm",
        f"teacher.name={teacher.spec.name}",
        f"teacher.options.img_size={teacher.spec.options['img_size']}",
        "+teacher.options.num_classes=0",
        f"teacher.mean={list(teacher.spec.mean)}",
        f"teacher.std={list(teacher.spec.std)}",
        *vit,
        f"teacher.weights={folder}/teacher",
        "data=image_folder",
        f"data.root={folder}/pictures",
        f"data.num_workers={workers}",
        f"paths.runs={folder}/runs",
        f"paths.stores={folder}/stores",
        f"data.batch_size={batch}",
        f"data.eval_batch_size={batch}",
    ]


def run(options: Options) -> list[Row]:
    """Measure all sources, and which resource is the limit."""
    cuda = options.device.type == "cuda"
    batch, steps, workers = (2, 2, 0) if options.quick else (64, 30, 12) if cuda else (8, 4, 1)
    workers = min(workers, max(1, (os.cpu_count() or 1) - 1)) if workers else 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = max(4 * batch, batch * (steps + WARM) // (8 if cuda else 1))
        common = prepare(folder, options, count, batch=batch, workers=workers)
        command("extract", *common, "content=pixels", f"store={folder}/pixels")
        command("extract", *common, f"store={folder}/layers", "dtype=bfloat16")
        cached = [*common, f"data.pixels={folder}/pixels"]
        stored = ["activations=cached", f"activations.store={folder}/layers"]
        alone = {"JPEG": loader_seconds(common, 4), "pixel cache": loader_seconds(cached, 4)}
        moved = loader_seconds(cached, 4, options.device)
        floor = train_seconds(cached, steps, options, InMemory(), same=True)
        compute = train_seconds(cached, steps, options, same=True)
        together = {
            "online, JPEG": train_seconds(common, steps, options),
            "online, pixel cache": train_seconds(cached, steps, options),
            "store of layers, bf16": train_seconds([*common, *stored], steps, options),
        }
    note = f"{workers} workers, batch {batch}, page cache warm"

    def rate(what: str, baseline: str, ours: float, theirs: float, note: str = note) -> Row:
        return Row(what, baseline, batch / ours, batch / theirs, "images/s", theirs / ours, note)

    rows = [rate(f"stage 1, {name}", "layers in memory", each, floor) for name, each in together.items()]
    rows.append(rate("stage 1, online, the same pictures", "layers in memory", compute, floor))
    for kind, each in alone.items():
        limit = "data" if each > compute else "compute"
        rows.append(
            rate(f"loader alone, {kind}", "stage 1 on the same pictures", each, compute, f"the limit is {limit}")
        )
    rows.append(
        rate(f"pixel cache to normalised images on {options.device.type}", "loader alone", moved, alone["pixel cache"])
    )
    return rows
