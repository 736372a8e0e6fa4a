"""Compare the cost model with measured steps: one step sets the rate, the others are predicted."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from rich.table import Table

from benchmarks.measure import Options, in_turn
from benchmarks.operations import PHASES, operations
from benchmarks.step import VIT_B, Step, new_blocks, random_teacher
from benchmarks.together import step_on_images
from raptor.data.sources import Online
from raptor.partition.phases import phases_of


def check(repeats: int = 3) -> Table:
    """Predict and measure steps that include the teacher, at ViT-B shape."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options, bf16 = Options(device, repeats=repeats), device.type == "cuda"
    batch = 64 if bf16 else 4
    teacher, ops = random_teacher(options), operations(VIT_B, 224)
    images = torch.randn(batch, *teacher.input_shape, device=device)
    whole = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12)), bf16=bf16)
    surrogate = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12))).task.model

    def stage2() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            acts = Online().activations(teacher, images, range(13))
        whole(acts)

    def forward(model: torch.nn.Module) -> Callable[[], object]:
        def call() -> None:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                model(images)

        return call

    alone, together = (step_on_images(teacher, phases, bf16=bf16, forcing=0.0) for phases in ([PHASES[0]], PHASES))
    runs: dict[str, tuple[Callable[[], object], float]] = {
        "stage 2 (sets the rate)": (stage2, ops.stage2()),
        "stage 1, 0-7, rollout": (lambda: alone(images), ops.stage1(0, 7, 0.0)),
        "stage 1, six phases, rollout": (lambda: together(images), ops.stage1_together(PHASES, 0.0)),
        "teacher, forward": (forward(teacher), ops.teacher(12)),
        "surrogate, forward": (forward(surrogate), ops.surrogate()),
    }
    times = {name: statistics.median(t) for name, t in in_turn({n: r for n, (r, _) in runs.items()}, options).items()}
    rate = batch * ops.stage2() / times["stage 2 (sets the rate)"]
    table = Table("step", "predicted (ms)", "measured (ms)", "error", title=f"batch {batch}, {rate / 1e12:.3g} TFLOP/s")
    for name, (_, flops) in runs.items():
        predicted = batch * flops / rate
        cells = (f"{1e3 * predicted:,.0f}", f"{1e3 * times[name]:,.0f}", f"{predicted / times[name] - 1:+.0%}")
        table.add_row(name, *cells)
    return table
