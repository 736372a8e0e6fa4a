"""Parts that measure with data: sources of activations, and probes of published shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from benchmarks import feed
from benchmarks.acceptance.outcome import Outcome
from benchmarks.configuration import train_config
from benchmarks.feed import SameBatch
from benchmarks.measure import Options, Row, StepTimes, release
from benchmarks.operations import operations
from benchmarks.probes import Noise
from benchmarks.step import VIT_B
from raptor.tasks.context import Context
from raptor.train import main

WITHIN = 0.65  # goal: the teacher in the step gives this share of the rate of layers in memory
WARM, STEPS = 3, 8
SHAPES: dict[str, tuple[str, int, tuple[int, ...], int | tuple[int, int]]] = {  # target, classes, its shape, pictures
    "imagenet": ("class", 1000, (), 224),
    "ade20k": ("labels", 150, (1, 518, 518), 518),
    "nyuv2": ("depth", 0, (1, 480, 640), (490, 644)),
    "mini_imagenet": ("class", 20, (), 64),
    "mini_ade20k": ("labels", 21, (1, 96, 96), 96),
    "mini_nyuv2": ("depth", 0, (1, 60, 80), (64, 80)),
}


def sources(options: Options, folder: Path) -> Outcome:
    """Measure stage 1 off every source of activations, loaders alone, and the pixel cache to the device."""
    outcome = Outcome(rows=feed.run(options))
    rates = {row.what: row for row in outcome.rows}
    outcome.check("all sources were measured", len(rates) == 7, len(rates), "7")
    online = rates["stage 1, online, pixel cache"]
    outcome.goal(f"{online.what}: share of layers in memory", online.gain, WITHIN, options)
    workers = int(rates["stage 1, online, JPEG"].note.split()[0])
    outcome.figures["jpegs_per_core"] = rates["loader alone, JPEG"].ours / max(1, workers)
    return outcome


def probes(options: Options, folder: Path) -> Outcome:
    """Measure training steps of the three probes: images per second, peak memory, operations per second."""
    outcome = Outcome(figures={"tflops": {}, "images_per_second": {}, "peak_GB": {}})
    for kind in ("imagenet", "ade20k", "nyuv2"):
        protocol = f"mini_{kind}" if options.quick else kind
        seconds, batch, peak = _largest_batch(protocol, options, folder)
        rate = batch / seconds
        outcome.figures["images_per_second"][kind] = rate
        outcome.figures["peak_GB"][kind] = peak / 1e9
        note = f"{peak / 1e9:.1f} GB at the peak" if peak else ""
        if not options.quick:
            flops = operations(VIT_B, SHAPES[protocol][3])
            outcome.figures["tflops"][kind] = rate * flops.teacher(flops.layers) / 1e12
            note += f", {outcome.figures['tflops'][kind]:.3g} TFLOP/s"
        outcome.rows.append(Row(f"{protocol}, batch {batch}", "none", rate, rate, "images/s", 1.0, note))
        outcome.check(f"{protocol}: steps were measured", seconds > 0, f"{1e3 * seconds:.1f} ms", "above 0")
    return outcome


def _largest_batch(protocol: str, options: Options, folder: Path) -> tuple[float, int, float]:
    """Measure at the protocol's batch, or at the largest half of a half of it that the device has memory for."""
    batch: int | None = None
    while True:
        try:
            return probe_step(protocol, options, folder, batch)
        except torch.OutOfMemoryError:
            batch = (batch or int(train_config(f"protocol={protocol}").data.batch_size)) // 2
            if batch < 1:
                raise
        release(options.device)


def probe_step(protocol: str, options: Options, folder: Path, batch: int | None = None) -> tuple[float, int, float]:
    """Measure the median training step of a probe on a frozen ViT with random weights, and noise.

    Returns
    -------
    tuple
        Seconds, images in a step, bytes of the device at the peak (0 on the CPU).
    """
    target, classes, shape, size = SHAPES[protocol]
    sides = str([size] * 2 if isinstance(size, int) else list(size)).replace(" ", "")
    vit = [
        "teacher=timm",
        f"teacher.name={VIT_B}",
        f"teacher.options.img_size={sides}",
        "+teacher.options.num_classes=0",
    ]
    if protocol.startswith("mini_"):
        vit = ["teacher=mini_vit", "teacher.weights=null", "recipe=mini"]
    on = ["trainer=gpu_bf16"] if options.device.type == "cuda" else ["trainer=cpu"]
    own = [f"protocol={protocol}", *vit, *on, "task.selection=[official]", "task.cache=false", "task.backbone=null"]
    own += ["task.start=random"] if target == "class" else []
    own += [] if batch is None else [f"data.batch_size={batch}"]
    job = main.parse(train_config(*own))
    teacher = job.teacher.build()
    data = Noise(target, classes, shape, int(job.data.batch_size))  # type: ignore[attr-defined]
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    data.substitute("train", SameBatch(data))
    task = job.task.build(Context(teacher, data, job.activations.build(), job.surrogate, seed=0))
    times, cuda = StepTimes(), options.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_steps=WARM + (2 if options.quick else STEPS),
        max_epochs=-1,
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        precision=job.trainer.precision,
        gradient_clip_val=job.trainer.gradient_clip_val,
        limit_val_batches=0,
        enable_checkpointing=False,
        callbacks=[times],
        use_distributed_sampler=False,
        default_root_dir=folder,
        **quiet,
    )
    trainer.fit(task, datamodule=data)
    peak = float(torch.cuda.max_memory_allocated()) if cuda else 0.0
    return times.median(WARM), data.batch_size, peak
