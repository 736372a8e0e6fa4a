"""Every experiment config composes and runs; the demo's jobs build on each other up to the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import raptor
from raptor.models.surrogate import Surrogate
from raptor.utils.files import CONFIGS

SMOKE = ["trainer.max_steps=2", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
CLIP_JOBS = ["experiment=clip/phases", "experiment=clip/blocks", "experiment=clip/surrogates"]
TRAIN_JOBS = [
    ["experiment=demo/blocks"],
    ["experiment=demo/surrogates", "surrogate.k=3"],
    ["experiment=demo/rivals"],
    ["experiment=demo/probes", "surrogate.k=3"],
    ["experiment=demo/probe_rivals", "grid.rival=untied"],
    ["experiment=demo/probe_teacher"],
    ["experiment=demo/probe_untrained"],
]


def test_every_experiment_is_run_somewhere_in_these_tests() -> None:
    files = (CONFIGS / "experiment").rglob("*.yaml")
    there = {str(file.relative_to(CONFIGS / "experiment").with_suffix("")) for file in files}
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_pipeline*.py"))
    assert there == set(re.findall(r"experiment=([\w/]+)", text))


@pytest.mark.slow
def test_the_demo_from_teacher_to_report(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", "experiment=demo/teacher", *SMOKE)
    call("phases", "experiment=demo/phases", "images=64")
    for job in TRAIN_JOBS:
        call("train", "-m", *job, "seed=0,1", *SMOKE)
    call("report", "experiment=demo")
    runs = tmp_path / "runs" / "demo"
    results = {p.parent.name: json.loads(p.read_text()) for p in runs.glob("*/result.json")}
    assert len(results) == 2 + 2 * (len(TRAIN_JOBS) + 1)  # two rivals for each seed
    assert (runs / "report" / "report.html").is_file()
    table = (runs / "report" / "table.md").read_text()
    assert all(f"| {name} " in table for name in ("k=3", "k=2, untied", "k=2, pruned_healed"))
    floors = (runs / "report" / "floors.md").read_text()
    assert all(name in floors for name in ("mean image", "affine map of layer 0", "phase start held, k=2"))
    assert "| 0-12 " in (runs / "report" / "blocks.md").read_text()

    boundaries = json.loads((runs / "phases" / "phases.json").read_text())["boundaries"]
    surrogate = raptor.load(runs / "surrogate-k3-seed0")
    assert isinstance(surrogate, Surrogate)
    assert surrogate.boundaries == boundaries["3"] == results["surrogate-k3-seed1"]["model"]["boundaries"]
    assert results["surrogate-k3-seed0"]["model"]["init"] == "blocks"
    assert results["surrogate-k3-seed0"]["model"]["solver"] == "exact"
    trained = {tuple(p) for p in results["blocks-seed0"]["model"]["phases"]}
    edges = [[0, *cut, 12] for cut in boundaries.values()]
    assert trained == {(a, b) for e in edges for a, b in pairwise(e)}
    untrained = {results[f"probe-untrained-seed{s}"]["model"]["backbone"]["label"] for s in (0, 1)}
    assert untrained == {"untrained"}
    with torch.no_grad():
        images = torch.randn(2, 1, 8, 8)
        assert surrogate.rollout(surrogate.embed(images)).shape == (2, 12, 21, 48)
        assert surrogate(images).shape == (2, 21, 48)


def test_the_study_of_clip_on_a_small_teacher(call: Callable[..., None], tmp_path: Path) -> None:
    small = ["data=digits", "teacher.pretrained=false", "+teacher.options.embed_dim=24", "+teacher.options.num_heads=2"]
    phases, blocks, surrogates = CLIP_JOBS
    call("phases", phases, *small, "images=32", "data.batch_size=32")
    call("train", blocks, *small, *SMOKE, "seed=0")
    chosen = ["seed=0", "surrogate.boundaries=[4,9]", "surrogate.k=3", "callbacks.snapshots.steps=[1,2]"]
    call("train", surrogates, *small, *SMOKE, *chosen)
    run = tmp_path / "runs" / "clip" / "surrogate-k3-seed0"
    assert len(json.loads((tmp_path / "runs/clip/phases/phases.json").read_text())["boundaries"]) == 6
    images = torch.randn(2, 3, 64, 64)
    early, late, final = (raptor.load(folder) for folder in (run / "snapshots/1", run / "snapshots/2", run))
    assert torch.equal(late(images), final(images))
    assert not torch.equal(early(images), final(images))
    read = [
        *small,
        "task.images=60",
        "task.neighbours=3",
        "trainer.limit_val_batches=2",
        "trainer.enable_progress_bar=false",
    ]
    for job in ("experiment=clip/references", "experiment=clip/readouts"):
        call("train", "-m", job, *read, *(["surrogate.k=3"] if "readouts" in job else []))
    call("report", "experiment=clip")
    page = (tmp_path / "runs" / "clip" / "report" / "report.html").read_text()
    assert all(name in page for name in ("teacher", "untrained", "k=3"))


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_other_loggers_write_into_the_run_folder(call: Callable[..., None], tmp_path: Path, logger: str) -> None:
    call("train", "task=linear_probe", f"logger={logger}", "name=run", *SMOKE)
    folder = tmp_path / "runs" / "default" / "run"
    pattern = {"tensorboard": "tensorboard/**/events*", "wandb": "wandb/offline-run-*/*.wandb"}[logger]
    assert list(folder.glob(pattern))
    assert json.loads((folder / "result.json").read_text())["history"]["train/loss"]


def test_a_profile_lies_in_the_run_folder(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", "trainer.profiler=simple", "name=run", *SMOKE)
    report = (tmp_path / "runs" / "default" / "run" / "profile" / "fit-simple.txt").read_text()
    assert "run_training_batch" in report and "backward" in report


@pytest.mark.parametrize("task", ["distill", "finetune"])
def test_the_fast_method_trains_both_stages(call: Callable[..., None], tmp_path: Path, task: str) -> None:
    call("train", "method=fast", f"task={task}", "name=run", "surrogate.boundaries=[4,8]", *SMOKE)
    before = json.loads((tmp_path / "runs" / "default" / "run" / "result.json").read_text())
    assert (before["steps"], before["data"]["train"]) == (2, 1437)
    call(
        "train",
        "method=fast",
        f"task={task}",
        "name=more",
        "surrogate.boundaries=[4,8]",
        *SMOKE,
        "trainer.max_steps=40",
    )
    after = json.loads((tmp_path / "runs" / "default" / "more" / "result.json").read_text())

    def r2(result: dict[str, Any]) -> list[float]:
        return [value for name, value in result["metrics"].items() if "r2_" in name]

    assert sum(r2(after)) > sum(r2(before))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_bf16_mixed_on_a_gpu_follows_float32(call: Callable[..., None], tmp_path: Path) -> None:
    for name, precision in (("half", "bf16-mixed"), ("full", "32-true")):
        call("train", "trainer=gpu_bf16", f"trainer.precision={precision}", f"name={name}", "trainer.max_steps=30")
    half, full = (
        json.loads((tmp_path / f"runs/default/{name}/result.json").read_text())["history"]["train/loss"][-1][1]
        for name in ("half", "full")
    )
    assert half == pytest.approx(full, rel=0.02)
