"""Whether data or compute is the limit: images per second of the loader alone, of a stage 1 run alone, and of both.

JPEG photographs of ImageNet's usual size are made in a temporary folder. Each end-to-end row is a training by Lightning
that takes its layers from the teacher in the step (pictures decoded, or from the pixel cache), from a store, or from
memory, which is the floor: nothing but the step.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from benchmarks.measure import Options, Row, synchronize
from benchmarks.step import random_teacher
from raptor.data.sources import Activations, ActivationSource, Online
from raptor.errors import from_node
from raptor.files import CONFIGS
from raptor.models.io import save
from raptor.models.teacher import Teacher
from raptor.tasks.partitioning import SurrogateOptions

WARM, PHASE = 2, [0, 7]


class InMemory(ActivationSource):
    """Layers that were computed once, the same in every step."""

    def __init__(self) -> None:
        self._acts: Activations = {}

    def connect(self, data: Any, teacher: Teacher, layers: Any) -> None:
        """Nothing to do."""

    def activations(self, teacher: Teacher, batch: Any, layers: Any) -> Activations:
        """The layers of the first batch."""
        self._acts = self._acts or Online().activations(teacher, batch, layers)
        return self._acts


class StepTimes(pl.Callback):
    """Time of each step from the end of the one before it, so that waiting for data counts."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        synchronize(trainer.strategy.root_device)
        self.ends.append(time.perf_counter())

    @property
    def median(self) -> float:
        """Median of the steps after the first few."""
        return statistics.median(np.diff(self.ends)[WARM - 1 :])


def write_pictures(root: Path, count: int, quick: bool) -> None:
    """Photograph-like JPEGs: smooth colours with some noise, 500 x 375 pixels, about 50 kB."""
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


def train_seconds(overrides: list[str], steps: int, source: ActivationSource | None, options: Options) -> float:
    """Median time of a step of stage 1, data included."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        trainer = "gpu_bf16" if options.device.type == "cuda" else "cpu"
        config = compose("train", ["task=distill", f"surrogate.phases=[{PHASE}]", f"trainer={trainer}", *overrides])
    teacher = instantiate(config.teacher, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    data.steps = steps + WARM
    surrogate: Any = OmegaConf.to_container(config.surrogate, resolve=True)
    task = instantiate(config.task, _partial_=True, _convert_="all")(
        teacher=teacher,
        data=data,
        source=source or instantiate(config.activations, _convert_="all"),
        surrogate=from_node(SurrogateOptions, surrogate, "surrogate"),
        seed=0,
    )
    task.teacher_forcing = 0.0
    times = StepTimes()
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer_ = pl.Trainer(
        max_steps=data.steps,
        max_epochs=-1,
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=config.trainer.precision,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        enable_checkpointing=False,
        callbacks=[times],
        use_distributed_sampler=False,
        **quiet,
    )
    trainer_.fit(task, datamodule=data)
    return times.median


def loader_seconds(overrides: list[str], batches: int) -> float:
    """Median time until the next batch of pictures, with nobody else at work."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", overrides)
    data, teacher = (instantiate(config[key], _convert_="all") for key in ("data", "teacher"))
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    begin = time.perf_counter()
    count = 0
    loader = data.loader(data.train_images, batch_size=data.batch_size)
    iterator = iter(loader)
    next(iterator)  # workers have started
    begin = time.perf_counter()
    for count, _ in enumerate(iterator, start=1):
        if count == batches:
            break
    return (time.perf_counter() - begin) / count


def run(options: Options) -> list[Row]:
    """All sources, and who is the limit."""
    cuda = options.device.type == "cuda"
    batch, steps, workers = (2, 2, 0) if options.quick else (64, 30, 12) if cuda else (8, 4, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", max(4 * batch, batch * (steps + WARM) // (8 if cuda else 1)), options.quick)
        teacher = random_teacher(options)
        save(teacher.cpu(), folder / "teacher", {})
        vit = [
            f"+teacher.options.{k}={v}" for k, v in teacher.spec.options.items() if k not in ("img_size", "num_classes")
        ]
        common = [
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
        ]
        _extract(common, "content=pixels", f"store={folder}/pixels")
        _extract(common, f"store={folder}/layers", "dtype=bfloat16", f"data.eval_batch_size={batch}")
        common += [f"data.batch_size={batch}"]
        cached = [*common, f"data.pixels={folder}/pixels"]
        stored = ["activations=cached", f"activations.store={folder}/layers"]
        alone = {"JPEG": loader_seconds(common, 3), "pixel cache": loader_seconds(cached, 3)}
        together = {
            "memory": train_seconds(cached, steps, InMemory(), options),
            "online, JPEG": train_seconds(common, steps, None, options),
            "online, pixel cache": train_seconds(cached, steps, None, options),
            "store of layers, bf16": train_seconds([*common, *stored], steps, None, options),
        }
    return _rows(alone, together, batch, workers)


def _extract(common: list[str], *overrides: str) -> None:
    command = [sys.executable, "-m", "raptor.extract", *common, *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"raptor.extract failed: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def _rows(alone: Mapping[str, float], together: Mapping[str, float], batch: int, workers: int) -> list[Row]:
    floor, rows = together["memory"], []
    for name, each in together.items():
        if name != "memory":
            note = f"{workers} workers, batch {batch}"
            rows.append(
                Row(f"stage 1, {name}", "layers in memory", batch / each, batch / floor, "images/s", floor / each, note)
            )
    for kind, online in (("JPEG", "online, JPEG"), ("pixel cache", "online, pixel cache")):
        each = alone[kind]
        limit = "data" if each > together[online] else "compute"
        note = f"{workers} workers; the limit of that run is {limit}"
        rows.append(
            Row(
                f"loader alone, {kind}",
                f"stage 1, {online}",
                batch / each,
                batch / together[online],
                "images/s",
                together[online] / each,
                note,
            )
        )
    return rows
