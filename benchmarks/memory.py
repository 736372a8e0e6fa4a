"""Compare peak memory of a stage 2 step, with and without recomputation, with the official step.

Each measurement is a process of its own, since memory that was once taken is seldom given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.measure import Options, Row, elsewhere, release
from benchmarks.official import OfficialStep
from benchmarks.step import WEIGHTS, Step, activations, new_blocks, random_teacher
from raptor.models.surrogate import Surrogate
from raptor.partition.phases import phases_of
from raptor.training.allocator import keep_freed_memory
from raptor.training.execution import execute

STEPS = 2  # the optimiser takes its memory in the first
KINDS = ("official", "plain", "recompute", "recompute bf16")
FORWARD = ("teacher, forward", "surrogate, forward")


def peak(kind: str, batch: int, options: Options) -> tuple[float, float]:
    """Measure the bytes at the peak of a step, and those before the first one."""
    step = _prepared(kind, batch, options)
    _trim()
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
    else:
        before = _resident()
        _forget_peak()
    for _ in range(STEPS):
        step()
    if options.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated()), before
    return _peak(), before


def _prepared(kind: str, batch: int, options: Options) -> Callable[[], object]:
    """Prepare one measurement, with nothing beside it in memory."""
    teacher = random_teacher(options)
    phases = phases_of([7, 10], teacher.num_layers)
    if kind in FORWARD:
        images = torch.randn(batch, *teacher.input_shape, device=options.device)
        model = (
            teacher if kind == FORWARD[0] else Surrogate.of_teacher(teacher, new_blocks(teacher, phases, mlp="gelu"))
        )
        return torch.inference_mode()(functools.partial(model, images))
    acts, blocks = activations(teacher, batch), new_blocks(teacher, phases)
    del teacher.blocks[:]
    if kind == "official":
        return functools.partial(OfficialStep(blocks, teacher.layout, WEIGHTS), acts)
    if kind == "plain" and options.device.type == "cpu":
        keep_freed_memory()  # as trainer=cpu does
    step = Step(teacher, blocks, bf16=kind.endswith("bf16"))
    execute(blocks, recompute=kind.startswith("recompute"))
    return functools.partial(step, acts)


def _trim() -> None:
    """Return freed memory to the system, so that the step's own is visible."""
    release(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(key: str) -> float:
    with Path("/proc/self/status").open() as lines:
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    try:
        return _status("VmHWM")
    except (OSError, StopIteration):
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now


def run(options: Options) -> list[Row]:
    """Measure the whole process, and what a step adds to it."""
    batch = 2 if options.quick else 16 if options.device.type == "cpu" else 64
    kinds = KINDS[:2] if options.quick else (*KINDS, *FORWARD)
    found = {kind: _elsewhere(kind, batch, options) for kind in kinds}
    rows = []
    for kind in kinds:
        if kind in (KINDS[0], FORWARD[0]):
            continue
        baseline = FORWARD[0] if kind in FORWARD else KINDS[0]
        ours, theirs = found[kind], found[baseline]
        name = f"k=3, batch {batch}, {kind}" if kind in FORWARD else f"stage 2, k=3, batch {batch}, {kind}"
        for i, what in enumerate(("process", "what it adds")):
            a, b = ((total - before if i else total) / 1e6 for total, before in (ours, theirs))
            rows.append(Row(f"{name}: {what}", baseline, a, b, "MB", b / a))
    return rows


def _elsewhere(kind: str, batch: int, options: Options) -> tuple[float, float]:
    arguments = [kind, str(batch), str(options.device), str(int(options.quick))]
    total, before = elsewhere("benchmarks.memory", *arguments)
    return total, before


if __name__ == "__main__":
    kind, batch, device, quick = sys.argv[1:]
    print(json.dumps(peak(kind, int(batch), Options(torch.device(device), quick == "1"))))
