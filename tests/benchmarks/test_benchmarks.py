"""The benchmarks compare like with like, count right, and say what they were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost import parse
from benchmarks.measure import Options, faster
from benchmarks.official import OfficialStep
from benchmarks.operations import operations
from benchmarks.report import write_study
from benchmarks.status import write_runs
from benchmarks.step import WEIGHTS, Step, _agreement, activations, new_blocks, random_teacher
from benchmarks.table1 import Given, Job, jobs, makespan, scaled, share, wall
from raptor.partition.phases import Phase, phases_of
from raptor.runs.status import rows_of
from raptor.runs.study import Study

ROOT = Path(__file__).parents[2]
QUICK = Options(torch.device("cpu"), quick=True)


@pytest.mark.parametrize("forcing", [0.0, 0.5])
@pytest.mark.parametrize("whole", [True, False])
def test_the_baseline_trains_as_ours_does(forcing: float, whole: bool) -> None:
    teacher = random_teacher(QUICK)
    phases = phases_of([7, 10], 12) if whole else [Phase(0, 7)]
    acts = activations(teacher, 2)
    ours = Step(teacher, new_blocks(teacher, phases), forcing=forcing, whole=whole)
    theirs = OfficialStep(new_blocks(teacher, phases), teacher.layout, WEIGHTS if whole else None)
    losses = [(ours(acts).item(), theirs(acts, forcing).item()) for _ in range(4)]
    assert losses[0] == pytest.approx((losses[0][1],) * 2, rel=1e-5)
    assert losses[3] == pytest.approx((losses[3][1],) * 2, rel=1e-4)
    assert losses[3][0] < losses[0][0]


def test_losses_under_bf16_autocast_stay_within_a_percent_of_float32() -> None:
    row = _agreement(Options(torch.device("cpu")))
    worst = float(row.note.removeprefix("at most ").split("%")[0])
    assert worst <= 1.0 and row.ours == pytest.approx(row.theirs, rel=0.01)
    assert row.ours < 0.6  # it has learned


def test_operations_are_those_that_run() -> None:
    name, size, tokens, width = "vit_small_patch14_reg4_dinov2", 56, 21, 384
    ops = operations(name, size)
    assert (ops.layers, ops.tokens, ops.width) == (12, tokens, width)
    layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width  # four projections, an MLP of ratio 4, attention
    block = 2 * tokens * 16 * width**2 + 4 * tokens**2 * width  # SwiGLU has three matrices
    assert ops.teacher_layer == pytest.approx(layer, rel=1e-6)
    assert ops.block == pytest.approx(block, rel=1e-6)
    assert ops.stage1(7, 10, 0.0) == ops.teacher(10) + 3 * ops.block_trained
    assert ops.stage1_together([(0, 7), (7, 12)], 0.0) == ops.teacher(12) + 12 * ops.block_trained
    teacher = random_teacher(QUICK)
    step, acts = Step(teacher, new_blocks(teacher, phases_of([7, 10], 12))), activations(teacher, 2)
    step(acts)
    with FlopCounterMode(display=False) as counter:
        step(acts)
    small = 2 * 2 * acts[0].shape[1] * 16 * 48**2 * 3 * 12
    assert counter.get_total_flops() == pytest.approx(small, rel=0.15)  # and attention


def test_the_cost_model_schedules_jobs() -> None:
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 1], 8) == 1
    assert scaled(12)[0] == (0, 7) and scaled(40)[0] == (0, 23)
    blocks = [Job("blocks", 3600, 1e12, 64)] * 3
    assert share(blocks, 2) == 1 and share(blocks, 8) == 2 and share(blocks, 1000) == 8
    assert share([Job("probes", 1, 1, 128)] * 2, 64) == 1  # a probe takes one GPU
    given, rest = Given(tflops=1.0), [Job("surrogates", 1, 1, 64), Job("probes", 1, 1, 128)]
    assert wall([*blocks, *rest], 3, given)["blocks"] == (1.0, 1)
    read = Job("blocks", 3600, 1e12, 64, bytes=4e9)
    assert read.hours(given) == 4.0  # a GB each second
    assert read.hours(Given(tflops=1.0, storage=2.0), gpus=4) == 8.0  # half of it
    assert Job("blocks", 3600, 1e12, 64, decoded=True).hours(Given(tflops=1.0, decode=0.25, cores=2)) == 2.0


@pytest.mark.parametrize("source", ["jpeg", "pixels", "bf16", "fp32"])
def test_the_cost_model_knows_all_jobs_of_table_1(source: str) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    found, ops = jobs(name, source), operations(name, 224)
    assert [sum(job.stage == stage for job in found) for stage in ("blocks", "surrogates", "probes")] == [18, 9, 33]
    assert all(job.images == 312_500 * 64 for job in found if job.stage != "probes")
    stored = source in ("bf16", "fp32")
    assert found[0].flops == pytest.approx(ops.stage1(0, 7) - (ops.teacher(7) if stored else 0))
    layers = {"bf16": 2, "fp32": 4}.get(source, 0) * 8 * 261 * 384
    assert found[0].bytes == (layers or {"jpeg": 110_000, "pixels": 150_528}[source])
    assert len([job for job in jobs(name, source, together=True) if job.stage == "blocks"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpu=8"], "gpu=8: expected a key"),
        (["gpus=many"], "gpus=many: expected a value of its type"),
        (["tflops=-1"], "tflops=-1: expected a number > 0"),
        (["source=tape"], "source=tape: expected jpeg, pixels, bf16 or fp32"),
    ],
)
def test_bad_keys_of_the_cost_model(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        parse(arguments)


def test_the_gain_is_the_median_of_the_rounds_own_ratios() -> None:
    row = faster("what", "a", "b", {"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 5.0]})
    assert (row.gain, row.ours, row.theirs) == (2.0, 1e3, 5e3)


@pytest.mark.slow
def test_one_command_prints_a_table_and_writes_a_json(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "phases", "memory", "--quick", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(target.read_text())
    assert found["facts"]["quick"] and torch.__version__.startswith(found["facts"]["versions"]["torch"])
    (largest,) = (row for row in found["rows"]["phases"] if row["what"] == "exact max-cut, L=96, k=12")
    assert largest["ours"] < 1e4
    assert {"process", "what it adds"} == {row["what"].split(": ")[1] for row in found["rows"]["memory"]}
    refused = subprocess.run([*command[:3], "speed"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "speed: unknown; choose among step, allocator, processor," in refused.stderr


def test_the_study_of_the_report_benchmark_is_one_that_a_report_reads(tmp_path: Path) -> None:
    write_study(tmp_path / "study", 32)
    study = Study(tmp_path / "study")
    assert (len(study.runs), study.unfinished) == (32, {})
    assert [len(group.records) for group in study.surrogates()] == [1] * 16
    assert {study.backbone_of(probe) for probe in study.probes()} == {group.key for group in study.surrogates()}


def test_the_study_of_the_status_benchmark_has_all_states(tmp_path: Path) -> None:
    write_runs(tmp_path, 100)
    counts = Counter(row.state.name for row in rows_of(tmp_path, dict))
    assert counts == {"done": 80, "failed": 5, "interrupted": 5, "stale": 10}


def test_a_report_needs_no_torch() -> None:
    """It takes seconds and hundreds of megabytes."""
    code = "import sys, raptor.reporting.study, raptor.runs.study; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
