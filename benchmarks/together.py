"""Stage 1 of all six phases of Table 1 in one run, against six runs of one phase each; the teacher runs in the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.measure import Options, Row, in_turn
from benchmarks.step import Step, new_blocks, random_teacher
from raptor.data.sources import Online
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase

PHASES = [Phase(0, 7), Phase(7, 10), Phase(0, 4), Phase(4, 7), Phase(10, 12), Phase(7, 12)]
ANNEALED = 0.25  # share of the steps in which both passes run


def step_on_images(teacher: Teacher, phases: Sequence[Phase], bf16: bool, forcing: float) -> Callable[[Tensor], object]:
    """A step of stage 1 from images: the teacher as deep as needed, then the blocks."""
    step = Step(teacher, new_blocks(teacher, phases), bf16=bf16, forcing=forcing, whole=False)
    layers = step.task.layers

    def run(images: Tensor) -> object:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            acts = Online().activations(teacher, images, layers)
        return step([acts.get(layer, images) for layer in range(teacher.num_layers + 1)])

    return run


def run(options: Options) -> list[Row]:
    """Rollout alone (three quarters of the steps), both passes, and the mix of the recipe."""
    teacher = random_teacher(options)
    bf16 = options.device.type == "cuda"
    batch = 2 if options.quick else 4 if options.device.type == "cpu" else 64
    images = torch.randn(batch, *teacher.input_shape, device=options.device)
    rows, mix = [], {"one": 0.0, "six": 0.0}
    for forcing, name, share in ((0.0, "rollout", 1 - ANNEALED), (0.5, "both passes", ANNEALED)):
        together = step_on_images(teacher, PHASES, bf16, forcing)
        alone = [step_on_images(teacher, [phase], bf16, forcing) for phase in PHASES]
        runs: dict[str, Callable[[], object]] = {"one": lambda together=together: together(images)}  # type: ignore[misc]
        runs["six"] = lambda alone=alone: [step(images) for step in alone]  # type: ignore[misc]
        times = in_turn(runs, options)
        one, six = (1e3 * sorted(times[key])[len(times[key]) // 2] for key in ("one", "six"))
        mix = {"one": mix["one"] + share * one, "six": mix["six"] + share * six}
        rows.append(_row(f"six phases, {name}, batch {batch}", one, six))
    return [*rows, _row("six phases, the recipe's mix", mix["one"], mix["six"])]


def _row(what: str, one: float, six: float) -> Row:
    return Row(what, "six runs", one, six, "ms", six / one, f"{one / six:.2f} of the six runs' time")
