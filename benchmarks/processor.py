"""Compare float32 with bfloat16 on this processor: large products, and steps of stage 2 beside the official one."""

from __future__ import annotations

import functools
import statistics

import torch

from benchmarks.measure import Options, Row, faster, in_turn, matmul_ceiling
from benchmarks.official import OfficialStep
from benchmarks.operations import count
from benchmarks.step import BASELINE, WEIGHTS, Step, activations, new_blocks, random_teacher
from raptor.partition.phases import phases_of
from raptor.training.allocator import keep_freed_memory


def run(options: Options) -> list[Row]:
    """Measure both types; half a minute to two minutes on a CPU."""
    if options.device.type == "cpu":
        keep_freed_memory()  # as trainer=cpu does
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    before = {name: matmul_ceiling(options.device, dtype, quick=options.quick) for name, dtype in dtypes.items()}
    teacher = random_teacher(options)
    phases = phases_of([7, 10], teacher.num_layers)
    batch = 2 if options.quick else 4 if options.device.type == "cpu" else 64
    acts = activations(teacher, batch)
    ours = {name: Step(teacher, new_blocks(teacher, phases), bf16=name == "bf16") for name in dtypes}
    runs = {name: functools.partial(step, acts) for name, step in ours.items()}
    operations = count(runs["fp32"])
    theirs = OfficialStep(new_blocks(teacher, phases), teacher.layout, WEIGHTS)
    times = in_turn({**runs, BASELINE: functools.partial(theirs, acts)}, options)
    after = {name: matmul_ceiling(options.device, dtype, quick=options.quick) for name, dtype in dtypes.items()}
    ceiling = {name: max(before[name], after[name]) / 1e12 for name in dtypes}
    gain = ceiling["bf16"] / ceiling["fp32"]
    rows = [Row("largest matrix product, bf16", "fp32", ceiling["bf16"], ceiling["fp32"], "TFLOP/s", gain)]
    for name in dtypes:
        share = operations / statistics.median(times[name]) / 1e12 / ceiling[name]
        note = f"{share:.0%} of the largest product" + (", compiled" if ours[name].compiled else "")
        rows.append(faster(f"stage 2, k=3, batch {batch}, {name}", name, BASELINE, times, note=note))
    return [*rows, faster(f"stage 2, k=3, batch {batch}, bf16", "bf16", "fp32", times)]
