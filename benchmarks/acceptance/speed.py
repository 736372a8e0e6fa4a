"""Parts that measure steps: ceilings, step rates, memory."""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.measure import Options, Row, faster, in_turn, release
from benchmarks.measure import ceilings as measured_ceilings
from benchmarks.memory import FORWARD, KINDS, peak
from benchmarks.official import OfficialStep
from benchmarks.operations import count
from benchmarks.step import BASELINE, VIT_B, VIT_L, WEIGHTS, Step, activations, new_blocks, random_teacher
from raptor.partition.phases import Phase, phases_of

GAIN, SHARE = 8.0, 0.45  # goals of a stage 2 step: times the official one, and of the ceiling of products
LARGE = 40e9  # bytes of memory of a large GPU
WARM = 3  # steps that are not counted: they compile


def batch_size(options: Options, most: int) -> int:
    """Choose a batch: ``most`` images on a large GPU, a quarter on others, few on a CPU."""
    if options.quick or options.device.type != "cuda":
        return 2 if options.quick else 4
    return most if torch.cuda.get_device_properties(options.device).total_memory > LARGE else most // 4


def ceilings(options: Options, folder: Path) -> Outcome:
    """Measure what steps are compared with."""
    found = measured_ceilings(options)
    outcome = Outcome(figures=found)
    for name, value in found.items():
        outcome.check(name, value > 0, f"{value / 1e12:.4g} T/s", "above 0")
    return outcome


def steps(options: Options, folder: Path) -> Outcome:
    """Measure stage 1 and 2 under bf16, compiled on a GPU, against the official step in the same run.

    Figures: ``tflops``, operations per second of the steps by teacher and stage, and ``share``, of the ceiling.
    """
    outcome = Outcome(figures={"tflops": {}, "share": {}})
    ceiling = measured_ceilings(options)["matmul_bf16"]
    for name, most in ((VIT_B, 64), (VIT_L, 32)):
        batch = batch_size(options, most)
        teacher = random_teacher(options, name)
        L = teacher.num_layers
        cuts = [round(L * 7 / 12), round(L * 10 / 12)]
        acts = activations(teacher, batch)
        for stage, phases in (("stage 2", phases_of(cuts, L)), ("stage 1", [Phase(0, cuts[0])])):
            whole = stage == "stage 2"
            ours = Step(teacher, new_blocks(teacher, phases), bf16=True, whole=whole)
            theirs = OfficialStep(new_blocks(teacher, phases), teacher.layout, WEIGHTS if whole else None)
            few = {layer: x[:2] for layer, x in acts.items()}
            plain = Step(teacher, new_blocks(teacher, phases), whole=whole)
            operations = count(functools.partial(plain, few)) * batch / len(few[0])
            del plain
            times = in_turn(
                {"ours": functools.partial(ours, acts), BASELINE: functools.partial(theirs, acts)}, options, warm=WARM
            )
            rate = operations / statistics.median(times["ours"])
            note = f"{batch / statistics.median(times['ours']):,.0f} images/s, {rate / 1e12:.3g} TFLOP/s, "
            note += f"{rate / ceiling:.0%} of the ceiling" + (", compiled" if ours.compiled else "")
            what = f"{name}, {stage}, batch {batch}, bf16"
            outcome.rows.append(faster(what, "ours", BASELINE, times, note=note))
            for key, value in (("tflops", rate / 1e12), ("share", rate / ceiling)):
                outcome.figures[key].setdefault(name, {})[stage] = value
            if whole and name == VIT_B:
                outcome.goal(f"{what}, times the official step", outcome.rows[-1].gain, GAIN, options)
                outcome.goal(f"{what}, share of the ceiling", rate / ceiling, SHARE, options)
            del ours, theirs
            release(options.device)
        del teacher, acts
        release(options.device)
    outcome.check("all steps were measured", len(outcome.rows) == 4, len(outcome.rows), "4")
    return outcome


def memory(options: Options, folder: Path) -> Outcome:
    """Measure the peak of a step of stage 2, plain and with recomputation, and of a forward."""
    outcome, batch = Outcome(), batch_size(options, 64)
    peaks: dict[str, tuple[float, float]] = {}
    for kind in (*KINDS, *FORWARD):
        peaks[kind] = peak(kind, batch, options)
        release(options.device)
    for kind, baseline in [(kind, KINDS[0]) for kind in KINDS[1:]] + [(FORWARD[1], FORWARD[0])]:
        (ours, before), (theirs, theirs_before) = peaks[kind], peaks[baseline]
        outcome.rows += [
            Row(f"{kind}, batch {batch}: peak", baseline, ours / 1e6, theirs / 1e6, "MB", theirs / ours),
            _added(f"{kind}, batch {batch}: what it adds", baseline, ours - before, theirs - theirs_before),
        ]
    outcome.figures["peak_bytes"] = {kind: total for kind, (total, _) in peaks.items()}
    if options.device.type == "cuda":  # on the CPU, the peak of a process that has run other steps says little
        order = [peaks[kind][0] for kind in ("recompute bf16", "recompute", "plain")]
        shown = ", ".join(f"{value / 1e6:,.0f} MB" for value in order)
        outcome.check("recompute bf16 < recompute < plain", order == sorted(order), shown, "growing")
    return outcome


def _added(what: str, baseline: str, ours: float, theirs: float) -> Row:
    gain: Any = theirs / ours if ours > 0 else float("inf")
    return Row(what, baseline, ours / 1e6, theirs / 1e6, "MB", gain)
