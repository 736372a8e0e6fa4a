"""The step on a GPU: compiled under bf16 autocast it follows float32, and never waits for the device."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measure import Options
from benchmarks.step import Step, activations, new_blocks, random_teacher
from raptor.partition.phases import phases_of
from raptor.tasks.execution import execute
from raptor.tasks.losses import VarianceScaledMSE, WeightedTokenMSE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
STEPS = 50


def steps(bf16: bool) -> tuple[Step, list[torch.Tensor]]:
    teacher = random_teacher(Options(torch.device("cuda"), quick=True))
    step = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12)), bf16=bf16)
    assert step.compiled is bf16
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
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step(acts)
    finally:
        torch.cuda.set_sync_debug_mode("default")
