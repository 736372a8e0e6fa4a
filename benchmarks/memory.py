"""Peak memory of a stage 2 step, with and without activation checkpointing, against the official recipe's step.

Each measurement is a process of its own, since memory that was once taken is seldom given back.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.measure import Options, Row
from benchmarks.official import OfficialStep
from benchmarks.step import WEIGHTS, Step, activations, new_blocks, random_teacher
from raptor.partition.phases import phases_of

STEPS = 2  # the optimiser takes its memory in the first
KINDS = ("official", "plain", "recompute", "recompute bf16")


def peak(kind: str, batch: int, options: Options) -> tuple[float, float]:
    """Bytes at the peak of a step, and those before the first one: the activations of the teacher and the weights."""
    teacher = random_teacher(options)
    phases, acts = phases_of([7, 10], teacher.num_layers), activations(teacher, batch)
    blocks = new_blocks(teacher, phases)
    del teacher.blocks[:]
    for piece in blocks:
        piece.block.recompute = kind.startswith("recompute")
    step = (
        OfficialStep(blocks, teacher.layout, WEIGHTS)
        if kind == "official"
        else Step(teacher, blocks, bf16=kind.endswith("bf16"))
    )
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = float(torch.cuda.memory_allocated())
    else:
        before = _resident()
        _forget_peak()
    for _ in range(STEPS):
        step(acts)
    if options.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated()), before
    return _peak(), before


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
    """Whole process, and what a step adds to it."""
    batch = 2 if options.quick else 16 if options.device.type == "cpu" else 64
    found = {kind: _elsewhere(kind, batch, options) for kind in KINDS}
    rows = []
    for kind in KINDS[1:]:
        ours, theirs = found[kind], found["official"]
        for i, what in enumerate(("process", "what a step adds")):
            a, b = ((total - before if i else total) / 1e6 for total, before in (ours, theirs))
            rows.append(Row(f"stage 2, k=3, batch {batch}, {kind}: {what}", "official step", a, b, "MB", b / a))
    return rows


def _elsewhere(kind: str, batch: int, options: Options) -> tuple[float, float]:
    arguments = [kind, str(batch), options.device.type, str(int(options.quick))]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    total, before = json.loads(done.stdout.splitlines()[-1])
    return total, before


if __name__ == "__main__":
    kind, batch, device, quick = sys.argv[1:]
    print(json.dumps(peak(kind, int(batch), Options(torch.device(device), quick == "1"))))
