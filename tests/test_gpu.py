"""On a GPU: the step compiled under bf16 autocast follows float32 and never waits; dynamics are those of the CPU.

``RAPTOR_TEST_DEVICE=cpu`` runs the same bodies on the CPU, so that what stands in them is known to run: nothing is
compiled then, nothing waits, and 16-bit floats are bfloat16.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from benchmarks.measure import Options, no_waiting
from benchmarks.step import Step, activations, new_blocks, random_teacher, spread
from raptor.data.digits import Digits
from raptor.models.load import load
from raptor.models.teacher import freeze
from raptor.partition.phases import phases_of
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.measure import Dynamics, Pass
from raptor.studies.dynamics.operators import PhaseOperators
from raptor.studies.dynamics.options import JacobianOptions, MeasureOptions, OperatorOptions, PerturbationOptions
from raptor.tasks.distillation.losses import VarianceScaledMSE, WeightedTokenMSE
from raptor.tasks.probes.depth import DepthProbing
from raptor.training.execution import execute
from tests.tasks.probes.probing import Known, greys
from tests.tasks.probes.test_dense_probes import plates

DEVICE = torch.device(os.environ.get("RAPTOR_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
STEPS = 50
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    # torch up to 2.11 says so at the first compilation; it has no way to be asked for full precision in silence
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores for float32:UserWarning"),
]


def steps(bf16: bool) -> tuple[Step, list[torch.Tensor]]:
    teacher = spread(random_teacher(Options(DEVICE, quick=True)))
    step = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12)), bf16=bf16)
    assert step.compiled is (bf16 and ON_GPU)
    return step, activations(teacher, 8)


def test_losses_agree_with_float32() -> None:
    (fp32, acts), (bf16, _) = steps(False), steps(True)
    for _ in range(STEPS):
        assert float(bf16(acts)) == pytest.approx(float(fp32(acts)), rel=0.05)  # at width 48; 1 % at 768


@pytest.mark.parametrize("forcing", [0.0, 0.5])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("loss", [WeightedTokenMSE, VarianceScaledMSE])
def test_a_step_does_not_wait_for_the_device(forcing: float, recompute: bool, loss: type[WeightedTokenMSE]) -> None:
    step, acts = steps(True)
    step.task.weight, step.task.loss = forcing, loss(0.45, 0.1, 0.45)
    execute(step.task, recompute=recompute)
    step(acts)
    with no_waiting(DEVICE):
        for _ in range(3):
            step(acts)


def test_a_wait_in_a_step_would_be_seen() -> None:
    x = torch.ones(3, device=DEVICE)
    with no_waiting(DEVICE):
        if ON_GPU:
            with pytest.raises(RuntimeError, match="synchroniz"):
                x.sum().item()
        else:
            x.sum().item()
    assert x.sum().item() == 3.0  # allowed again


def test_dynamics_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as raptor.dynamics does
    options = MeasureOptions(
        shown=3, perturbation=PerturbationOptions(images=2, sizes=[0.1]), jacobian=JacobianOptions(images=1, values=2)
    )
    found = []
    for device in (torch.device("cpu"), DEVICE):
        teacher = freeze(load("package:digits_vit")).to(device)
        data = Digits()
        data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
        images = ImageBatches(data, "val", 24, 8, device)
        found.append(Dynamics(teacher, images, options).measure(str(device), [5]))
    on_cpu, on_gpu = found
    assert on_cpu.keys() == on_gpu.keys()
    compared = set()
    for key, values in on_cpu.items():
        kind = key.split("/")[0]
        if kind in ("curves", "perturbed", "constant_offset", "other_end", "distance"):
            assert on_gpu[key] == pytest.approx(values, rel=1e-3, abs=1e-5), key  # the network itself is float32
        elif kind == "jacobian":
            assert np.sort(np.abs(on_gpu[key])) == pytest.approx(np.sort(np.abs(values)), rel=2e-3, abs=1e-6), key
        else:
            continue
        compared.add(kind)
    assert compared == {"curves", "perturbed", "constant_offset", "other_end", "distance", "jacobian"}


def test_measures_are_those_of_the_cpu_to_a_millionth() -> None:
    teacher = freeze(load("package:digits_vit"))
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(12, teacher.layout.num_tokens, teacher.width, generator=generator) for _ in range(13)]
    found = []
    for device in (torch.device("cpu"), DEVICE):
        network = teacher.to(device).double()
        sums = Pass(network, 12, 3, MeasureOptions(shown=3))
        moved = [x.to(device).double() for x in layers]
        sums.update(range(12), moved, torch.arange(12) % 3)
        options = OperatorOptions(rank=4)
        operators = PhaseOperators(network, sums.fitted, sums.evaluated, [4, 8], options, classifies=True)
        one_step = operators.one_step()
        operators.update(range(12), moved, sums.half)
        found.append(sums.arrays() | one_step | operators.arrays())
    assert found[0].keys() == found[1].keys()
    for key, values in found[0].items():
        there = np.sort(np.abs(found[1][key]).ravel())
        assert there == pytest.approx(np.sort(np.abs(values).ravel()), rel=1e-6, abs=1e-9), key


def test_the_depth_protocol_trains_in_float16(tmp_path: Path) -> None:
    """Gradient scaling on the GPU follows float32, with fused AdamW and nothing clipped."""
    images, depth = plates()
    found = []
    precisions: list[Any] = ["32-true", "16-mixed" if ON_GPU else "bf16-mixed"]
    for precision in precisions:
        data = greys("depth", depth, images, 0)
        backbone = Known(4, lambda grey: torch.stack([grey, grey.sin(), grey.cos(), 1 - grey], dim=-1))
        options = {"optimizer": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True), "schedule": None}
        task = DepthProbing(backbone, data, {}, name="d", seed=0, bins=4, nearest=0.0, farthest=8.0, **options)
        trainer = pl.Trainer(
            max_steps=30,
            max_epochs=-1,
            accelerator="gpu" if ON_GPU else "cpu",
            devices=1,
            precision=precision,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(task, datamodule=data)
        found.append(torch.cat([p.detach().cpu().flatten() for p in task.heads.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.05)
