"""Measure CPU steps with freed memory kept (``trainer=cpu``) or returned to the system.

The allocator is set once for a whole process, so each measurement is a process of its own, in turn.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys

import torch

from benchmarks.measure import Options, Row, elsewhere, faster, in_turn, matmul_ceiling
from benchmarks.official import OfficialStep
from benchmarks.operations import count
from benchmarks.step import WEIGHTS, Step, activations, new_blocks, random_teacher
from raptor.partition.phases import phases_of
from raptor.training.allocator import keep_freed_memory

STEPS = 3
KINDS = ("kept", "given back", "official step, given back")


def measure(kind: str, batch: int, options: Options) -> tuple[float, float]:
    """Measure a step of stage 2 in this process: median time, share of the matmul ceiling."""
    if kind == KINDS[0] and not keep_freed_memory():
        raise RuntimeError("the allocator of this system cannot be set to keep memory")
    teacher = random_teacher(options)
    acts, blocks = activations(teacher, batch), new_blocks(teacher, phases_of([7, 10], teacher.num_layers))
    official = kind.startswith("official")
    step = OfficialStep(blocks, teacher.layout, WEIGHTS) if official else Step(teacher, blocks)
    run = functools.partial(step, acts)
    before = matmul_ceiling(options.device, torch.float32, quick=options.quick)
    median = statistics.median(in_turn({kind: run}, Options(options.device, options.quick, STEPS))[kind])
    ceiling = max(before, matmul_ceiling(options.device, torch.float32, quick=options.quick))
    return median, 0.0 if official else count(run) / median / ceiling


def run(options: Options) -> list[Row]:
    """Compare with returning memory, and with the official step, which returns it."""
    if options.device.type != "cpu":
        return []
    batch = 2 if options.quick else 16
    rounds = [{kind: _elsewhere(kind, batch, options) for kind in KINDS} for _ in range(options.rounds)]
    times = {kind: [found[kind][0] for found in rounds] for kind in KINDS}
    shares = {kind: statistics.median(found[kind][1] for found in rounds) for kind in KINDS}
    note = f"{shares[KINDS[0]]:.0%} of the matmul ceiling; given back: {shares[KINDS[1]]:.0%}"
    what = f"stage 2, k=3, batch {batch}, fp32, freed memory kept"
    return [faster(what, KINDS[0], baseline, times, note=note) for baseline in KINDS[1:]]


def _elsewhere(kind: str, batch: int, options: Options) -> tuple[float, float]:
    median, share = elsewhere("benchmarks.allocator", kind, str(batch), str(int(options.quick)))
    return median, share


if __name__ == "__main__":
    kind, batch, quick = sys.argv[1:]
    print(json.dumps(measure(kind, int(batch), Options(torch.device("cpu"), quick == "1"))))
