"""The step on a GPU: compiled under bf16 autocast it follows float32, and never waits for the device."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measure import Options
from benchmarks.step import Step, activations, new_blocks, random_teacher
from raptor.partition.phases import phases_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
STEPS = 50


def steps(bf16: bool) -> tuple[Step, list[torch.Tensor]]:
    teacher = random_teacher(Options(torch.device("cuda"), quick=True))
    step = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12)), bf16=bf16)
    if bf16:
        for piece in step.task.model.blocks:
            piece.block.compile_inside()
    return step, activations(teacher, 8)


def test_losses_agree_with_float32() -> None:
    (fp32, acts), (bf16, _) = steps(False), steps(True)
    for _ in range(STEPS):
        assert float(bf16(acts)) == pytest.approx(float(fp32(acts)), rel=0.05)  # at width 48; 1 % at 768


def test_a_step_does_not_wait_for_the_device() -> None:
    step, acts = steps(True)
    step(acts)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step(acts)
    finally:
        torch.cuda.set_sync_debug_mode("default")
