"""The device changes nothing: tasks and dynamics on a device that is not the CPU do what they do on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from benchmarks.measure import Options
from benchmarks.step import Fixed, activations, new_blocks, random_teacher
from raptor.data.digits import Digits
from raptor.models.load import load
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import freeze
from raptor.partition.phases import phases_of
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.measure import Dynamics
from raptor.studies.dynamics.options import JacobianOptions, MeasureOptions, PerturbationOptions
from raptor.tasks.distillation.losses import VarianceScaledMSE, WeightedTokenMSE
from raptor.tasks.probes.depth import DepthProbing
from raptor.tasks.probes.segmentation import SegmentationProbing
from tests.elsewhere import DEVICE, WAITS, elsewhere, strategy
from tests.tasks.probes.probing import fit, greys, oracle
from tests.tasks.probes.test_dense_probes import stripes

SHORT = [
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
]
ADAMW = ["task.optimizer.fused=false", "task.optimizer.foreach=false"]  # the others look for kernels of the device
ADAMW_HERE: dict[str, Any] = {
    "optimizer": lambda params: torch.optim.AdamW(params, lr=0.1, foreach=False),
    "schedule": None,
}
OPTIONS: dict[str, Any] = {"name": "", "optimizer": None, "schedule": None}
JOBS = {
    "distill": ["task=distill", "surrogate.k=2", *ADAMW],
    "finetune": ["task=finetune", "surrogate.k=3", *ADAMW],
    "fast": ["task=finetune", "surrogate.k=3", "method=fast"],
    "partitions": ["task=partitions", "task.ks=[2]", "task.kinds=[maxcut,shuffled]", "task.swaps=1", *ADAMW],
    "classifier": ["task=classifier", *ADAMW],
    "linear_probe": ["task=linear_probe", "task.checks=[knn,ridge]", *ADAMW],
}


@contextmanager
def training_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    trainer = pl.Trainer
    there: dict[str, Any] = {"accelerator": "auto", "inference_mode": False}
    with elsewhere(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(pl, "Trainer", lambda **options: trainer(**options | there | {"strategy": strategy()}))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_training_on_another_device(
    job: str, call: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def train(name: str) -> dict[str, Any]:
        call("train", *JOBS[job], *SHORT, f"name={name}")
        result: dict[str, Any] = json.loads((tmp_path / "runs" / "default" / name / "result.json").read_text())
        return result

    here = train("here")
    with training_elsewhere(monkeypatch):
        there = train("there")
    assert there["metrics"] == pytest.approx(here["metrics"], rel=1e-3, abs=1e-4)
    assert there["steps"] == here["steps"] == 2


@pytest.mark.parametrize(("kind", "target"), [(SegmentationProbing, "labels"), (DepthProbing, "depth")])
def test_a_dense_probe_on_another_device(
    kind: type[SegmentationProbing | DepthProbing], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> dict[str, float]:
        images, labels = stripes()
        data = greys(target, labels if target == "labels" else images + 1.0, images, 4)
        torch.manual_seed(0)
        return fit(kind(oracle(4), data, {}, name="probe", seed=0, flip=True, **ADAMW_HERE), data, 4)

    here = train()
    with training_elsewhere(monkeypatch):
        there = train()
    assert there == pytest.approx(here, rel=1e-4)


def test_dynamics_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    options = MeasureOptions(
        shown=3, perturbation=PerturbationOptions(images=2, sizes=[0.1]), jacobian=JacobianOptions(images=0)
    )
    monkeypatch.setattr(Dynamics, "_jacobians", lambda *args: {})  # forward-mode differentiation does not run elsewhere

    def measure(device: torch.device) -> dict[str, Any]:
        teacher = freeze(load("package:digits_vit")).to(device)
        data = Digits()
        data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
        return Dynamics(teacher, ImageBatches(data, "val", 24, 8, device), options).measure("teacher", [5])

    here = measure(torch.device("cpu"))
    with elsewhere(monkeypatch):
        there = measure(DEVICE)
    assert here.keys() == there.keys()
    for key, values in here.items():
        if values.dtype.kind == "f" and not key.startswith("operators/"):
            assert there[key] == pytest.approx(values, rel=1e-3, abs=1e-4), key
        else:
            assert np.shape(there[key]) == np.shape(values), key


@pytest.mark.parametrize("forcing", [0.0, 0.5])
@pytest.mark.parametrize("loss", [WeightedTokenMSE, VarianceScaledMSE])
def test_a_step_does_not_wait_for_the_device(
    forcing: float, loss: type[WeightedTokenMSE], monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere(monkeypatch):
        teacher = random_teacher(Options(DEVICE, quick=True))
        blocks, acts = new_blocks(teacher, phases_of([7, 10], 12)), activations(teacher, 2)
        task = Fixed(
            teacher, Surrogate.of_teacher(teacher, blocks), loss(0.45, 0.1, 0.45), top1=False, seed=0, **OPTIONS
        )
        task.weight = forcing
        WAITS.clear()
        losses = torch.stack([task.student_loss(piece, acts) for piece in task.students])
        losses.sum().backward()
        optimizer = ADAMW_HERE["optimizer"]([p for p in blocks.parameters() if p.requires_grad])
        task.configure_gradient_clipping(optimizer, 1.0)
        assert not WAITS
        float(losses.detach().sum())
        assert len(WAITS) == 1


def test_devices_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(monkeypatch):
        x = torch.ones(2, 3).to(DEVICE)
        assert (x @ torch.ones(3, 2, device=DEVICE)).cpu().numpy().tolist() == [[3.0, 3.0]] * 2
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(2, 3)
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
