"""Compare stage 1 of six phases in one run with six runs; the teacher runs in the step."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.measure import Options, Row, in_turn
from benchmarks.operations import ANNEALED, PHASES
from benchmarks.step import Step, new_blocks, random_teacher
from raptor.data.sources import Online
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase


def step_on_images(
    teacher: Teacher, phases: Sequence[tuple[int, int]], *, bf16: bool, forcing: float
) -> Callable[[Tensor], object]:
    """Make a step of stage 1 from images: the teacher as deep as needed, then the blocks."""
    blocks = new_blocks(teacher, [Phase(*phase) for phase in phases])
    step = Step(teacher, blocks, bf16=bf16, forcing=forcing, whole=False)

    def run(images: Tensor) -> object:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            acts = Online().activations(teacher, images, step.task.layers)
        return step(acts)

    return run


def run(options: Options) -> list[Row]:
    """Measure a step of rollouts, of both passes, the recipe's mix; then whole runs."""
    teacher = random_teacher(options)
    bf16 = options.device.type == "cuda"
    batch = 2 if options.quick else 4 if options.device.type == "cpu" else 64
    images = torch.randn(batch, *teacher.input_shape, device=options.device)
    rows, mix = [], {"one": 0.0, "six": 0.0}
    for forcing, name, share in ((0.0, "rollout", 1 - ANNEALED), (0.5, "both passes", ANNEALED)):
        together = step_on_images(teacher, PHASES, bf16=bf16, forcing=forcing)
        alone = [step_on_images(teacher, [phase], bf16=bf16, forcing=forcing) for phase in PHASES]
        runs: dict[str, Callable[[], object]] = {"one": lambda together=together: together(images)}  # type: ignore[misc]
        runs["six"] = lambda alone=alone: [step(images) for step in alone]  # type: ignore[misc]
        one, six = (1e3 * statistics.median(times) for times in in_turn(runs, options).values())
        mix = {"one": mix["one"] + share * one, "six": mix["six"] + share * six}
        rows.append(_row(f"step of six phases, {name}, batch {batch}", one, six, "ms"))
    rows.append(_row("step of six phases, mean over the recipe", mix["one"], mix["six"], "ms"))
    steps = 2 if options.quick else 200
    one, six = _whole_run(PHASES, steps), sum(_whole_run([phase], steps) for phase in PHASES)
    return [*rows, _row(f"raptor.train of six phases, digits ViT, {steps} steps", one, six, "s")]


def _whole_run(phases: Sequence[tuple[int, int]], steps: int) -> float:
    """Measure the seconds of a command, from its start to its result."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"surrogate.phases={[list(phase) for phase in phases]}", f"trainer.max_steps={steps}"]
        command = [sys.executable, "-m", "raptor.train", "task=distill", f"paths.runs={folder}", *overrides]
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begin


def _row(what: str, one: float, six: float, unit: str) -> Row:
    return Row(what, "six runs", one, six, unit, six / one, f"{one / six:.2f} of the six runs' time")
