"""Parts that compare: tests, waiting, graphs, losses, equality with the CPU, determinism."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.runner import ROOT
from benchmarks.configuration import command as raptor_command
from benchmarks.measure import Options, no_waiting
from benchmarks.operations import PHASES
from benchmarks.step import Step, activations, new_blocks, random_teacher, spread
from raptor.data.sources import Online
from raptor.partition.phases import Phase, phases_of
from raptor.utils.files import read_json

K3 = [7, 10]


def tests(options: Options, folder: Path) -> Outcome:
    """Run the tests that are for a GPU; with ``RAPTOR_TEST_DEVICE=cpu`` they take the CPU."""
    report = folder / "tests.xml"
    files = ["tests/test_gpu.py", *(["tests/test_pipeline.py"] if options.device.type == "cuda" else [])]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", *files, f"--junitxml={report}"]
    environment = {**os.environ, "RAPTOR_TEST_DEVICE": options.device.type}
    code = subprocess.run([*command, f"--basetemp={folder / 'tests'}"], cwd=ROOT, env=environment).returncode
    suite = next(ET.parse(report).getroot().iter("testsuite"))
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    wrong = [case.get("name", "") for case in suite.iter("testcase") if len(case)]
    outcome = Outcome(figures=dict(count))
    passed = code == 0 and count["tests"] > 0 and not wrong
    outcome.check(
        "tests that passed", passed, f"{count['tests'] - len(wrong)} ({', '.join(wrong)})", f"{count['tests']}"
    )
    return outcome


def waiting(options: Options, folder: Path) -> Outcome:
    """Run steps of both stages while an error is raised wherever the host waits for the device."""
    outcome = Outcome()
    if options.device.type == "cpu":
        outcome.check("reads that wait, on a stand-in for a device", *_waits_on_stand_in())
    teacher = random_teacher(Options(options.device, quick=True))
    acts = activations(teacher, 4)
    for what, phases, whole in (("stage 2", phases_of(K3, 12), True), ("stage 1", [Phase(*p) for p in PHASES], False)):
        for forcing in (0.0, 0.5):
            step = Step(teacher, new_blocks(teacher, phases), bf16=True, forcing=forcing, whole=whole)
            step(acts)
            error = ""
            try:
                with no_waiting(options.device):
                    for _ in range(3):
                        step(acts)
            except RuntimeError as found:
                error = str(found).splitlines()[0]
            outcome.check(f"{what}, forcing {forcing:g}", not error, error or "no wait", "no wait")
    return outcome


def _waits_on_stand_in() -> tuple[bool, str, str]:
    import pytest

    from tests.elsewhere import DEVICE, WAITS, elsewhere

    with pytest.MonkeyPatch.context() as patch, elsewhere(patch):
        teacher = random_teacher(Options(DEVICE, quick=True))
        step = Step(teacher, new_blocks(teacher, phases_of(K3, 12)), fused=False)
        acts = activations(teacher, 2)
        WAITS.clear()
        loss = step(acts)
        in_step = len(WAITS)
        float(loss)
        return in_step == 0 and len(WAITS) == 1, f"{in_step} in a step, {len(WAITS)} after reading the loss", "0, 1"


def graphs(options: Options, folder: Path) -> Outcome:
    """Count what torch.compile captures: graphs must serve all depths, phases and blocks."""
    outcome, teacher = Outcome(), random_teacher(Options(options.device, quick=True))
    acts = activations(teacher, 4)
    torch._dynamo.reset()
    counters.clear()

    def captured(run: Callable[[], object]) -> int:
        before = int(counters["stats"]["unique_graphs"])
        run()
        return int(counters["stats"]["unique_graphs"]) - before

    def step(phases: Sequence[Phase], *, whole: bool) -> Step:
        return Step(teacher, new_blocks(teacher, phases), bf16=True, compile=True, whole=whole)

    k3, six = step(phases_of(K3, 12), whole=True), step([Phase(*p) for p in PHASES], whole=False)
    found = captured(lambda: k3(acts))
    # the first application of a rollout needs no gradient of its tokens: a graph of its own, with less to compute
    outcome.check("12 depths of 3 blocks: graphs", found == 2, found, "2: with gradients of the tokens, and without")
    found = captured(lambda: [k3(acts) for _ in range(3)])
    outcome.check("further steps: graphs", found == 0, found, "0")
    found = captured(lambda: six(acts))
    outcome.check("six other blocks and phases: graphs", found == 0, found, "0")
    six.task.weight = 0.5
    found = captured(lambda: six(acts))
    outcome.check("teacher forcing, phases of 2 to 7 layers: graphs", found == 1, found, "1, of any batch")
    six.task.weight = 0.0
    found = captured(lambda: [six(acts), k3(acts)])
    outcome.check("back to rollouts: graphs", found == 0, found, "0")
    stats = {f"dynamo {kind} {key}": int(n) for kind in ("frames", "stats") for key, n in counters[kind].items()}
    outcome.figures |= stats | {"graph breaks": sum(counters["graph_break"].values())}
    breaks = outcome.figures["graph breaks"]
    outcome.check("graph breaks", breaks == 0, breaks, "0")
    return outcome


def losses(options: Options, folder: Path) -> Outcome:
    """Compare losses under bf16 autocast with float32 over a training at width 768."""
    outcome, teacher = Outcome(), spread(random_teacher(options))
    steps, batch, limit = (5, 4, 0.05) if options.quick else (50, 16, 0.01)
    images = torch.randn(batch, *teacher.input_shape, device=options.device)
    acts = Online().activations(teacher, images, range(teacher.num_layers + 1))
    phases = phases_of(K3, teacher.num_layers)
    bf16, fp32 = (Step(teacher, new_blocks(teacher, phases), bf16=b) for b in (True, False))
    pairs = [(float(bf16(acts)), float(fp32(acts))) for _ in range(steps)]
    worst = max(abs(a / b - 1) for a, b in pairs)
    what = f"width {teacher.width}, {steps} steps, largest relative difference"
    outcome.check(what, worst <= limit, f"{worst:.3%}", f"at most {limit:.0%}")
    outcome.check("the loss falls", pairs[-1][1] < pairs[0][1], f"{pairs[0][1]:.4g} to {pairs[-1][1]:.4g}", "lower")
    outcome.figures["losses_bf16_fp32"] = pairs
    return outcome


def equality(options: Options, folder: Path) -> Outcome:
    """Compare layers and a training in float32 with those of the CPU."""
    outcome = Outcome()
    teacher = random_teacher(Options(torch.device("cpu"), options.quick))
    images = torch.randn(2, *teacher.input_shape)
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False  # of the patch embedding
    here = Online().activations(teacher, images, range(teacher.num_layers + 1))
    teacher.to(options.device)
    there = Online().activations(teacher, images.to(options.device), range(teacher.num_layers + 1))
    worst = max(float((there[i].cpu() - x).norm() / x.norm()) for i, x in here.items())
    outcome.check(f"layers of {teacher.width} wide ViT, relative error", worst <= 1e-4, f"{worst:.2e}", "at most 1e-4")
    torch.backends.cudnn.allow_tf32 = allowed
    fp32 = ["trainer.precision=32-true", "trainer.compile=false"]
    on_cpu = train(folder, "cpu", options, "trainer=cpu")
    on_device = train(folder, "device", options, *fp32) if options.device.type == "cuda" else on_cpu
    difference = _apart(on_device, on_cpu)
    outcome.check("raptor.train in fp32, metrics", difference <= 2e-3, f"{difference:.2e} apart", "at most 2e-3")
    return outcome


def train(folder: Path, name: str, options: Options, *overrides: str) -> dict[str, Any]:
    """Run ``raptor.train`` on the digits in this process; return its result."""
    steps = 6 if options.quick else 60
    short = [f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", "trainer.limit_val_batches=1"]
    short += ["trainer.enable_progress_bar=false", f"callbacks.checkpoint.every_n_steps={steps // 3}"]
    own = [f"paths.runs={folder}/runs", f"name={name}", f"surrogate.boundaries={K3}".replace(" ", "")]
    trainer = "trainer=gpu_bf16" if options.device.type == "cuda" else "trainer=cpu_bf16"
    trainer = next((override for override in overrides if override.startswith("trainer=")), trainer)
    rest = [override for override in overrides if override != trainer]
    raptor_command("train", trainer, *short, *own, *rest)
    result = read_json(folder / "runs" / "default" / name / "result.json")
    assert result is not None
    return result


def _apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Compute the largest difference of metrics; accuracies of few images change by whole images, so not theirs."""
    return max(abs(a["metrics"][key] - value) for key, value in b["metrics"].items() if "top1" not in key)


def _killed(folder: Path, name: str, options: Options, *overrides: str) -> None:
    """Train until the first checkpoint is written, then kill the process."""
    from raptor.training.checkpoints import RunCheckpointIO

    save, nowhere = RunCheckpointIO.save_checkpoint, os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)

    def save_and_die(self: RunCheckpointIO, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    RunCheckpointIO.save_checkpoint = save_and_die  # type: ignore[method-assign]
    train(folder, name, options, *overrides)


def determinism(options: Options, folder: Path) -> Outcome:
    """Train the same twice, and once with a kill between; torch promises equal bits with ``deterministic=true``."""
    outcome, fixed = Outcome(), ["trainer.deterministic=true"]
    context: Any = multiprocessing.get_context("spawn" if options.device.type == "cuda" else "forkserver")
    process = context.Process(target=_killed, args=(folder, "killed", options, *fixed))
    process.start()
    process.join()
    outcome.check("a training that is killed at its checkpoint", process.exitcode == -9, process.exitcode, "-9")
    first, second, resumed = (train(folder, name, options, *fixed) for name in ("first", "second", "killed"))
    for what, other in (("the same training again", second), ("the killed one, continued", resumed)):
        same = first["weights_sha256"] == other["weights_sha256"]
        outcome.check(f"{what}: weights, deterministic", same, "equal" if same else "different", "equal bits")
    outcome.check("attempts of the killed one", resumed["attempts"] == 2, resumed["attempts"], "2")
    torch.use_deterministic_algorithms(mode=False)
    free = train(folder, "free", options)
    difference = _apart(free, first)
    equal = free["weights_sha256"] == first["weights_sha256"]
    outcome.figures["equal bits without deterministic=true"] = equal
    outcome.check("without deterministic=true: metrics", difference <= 1e-2, f"{difference:.2e} apart", "at most 1e-2")
    return outcome
