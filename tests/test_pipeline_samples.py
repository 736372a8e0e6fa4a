"""The study of images to fidelity: every arm trains what its name says, from stage 1 to the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raptor.cli import sweeps
from raptor.runs.identity import identity
from raptor.train import main

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "trainer.max_steps=2"]
FAST = ["method=fast", "trainer.val_check_interval=1000000"]
LOSS = "task.loss._target_=raptor.tasks.distillation.options.WeightedTokenMSEOptions"
ARMS: dict[str, list[str]] = {  # name of a run: what a command without the experiment says
    "paper-blocks-62-seed1": ["task=distill", "recipe.lr=3e-4", "recipe.layer_scale=1e-5", "recipe.batch_size=64"],
    "tuned-250-seed2": ["recipe.lr=3e-3", "recipe.batch_size=64"],
    "fast-200-seed0": FAST,
    "without_initial_blocks-seed0": [*FAST, "surrogate.init=random"],
    "without_middle_blocks-seed0": [*FAST, "surrogate.init=middle"],
    "without_loss-seed0": [*FAST, LOSS],
    "without_growth-seed0": [*FAST, "task.rollout_growth=0.0"],
    "without_small_batches-seed0": [*FAST, "recipe.batch_size=64"],
    "without_muon-seed0": [*FAST, "optimizer@task.optimizer=adamw", "recipe.lr=3e-3"],
}
STAGES = (
    "experiment=samples/blocks",
    "experiment=samples/recipe",
    "experiment=samples/fast",
    "experiment=samples/without",
    "experiment=samples/without_muon",
)
STEPS = {"blocks-62": 62, "tuned-250": 250, "fast-200": 200, "small_batches": 100}


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return {job.config.name: job.config for stage in STAGES for job in sweeps.jobs("train", [stage])}


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_trains_what_its_name_says(jobs: dict[str, Any], name: str) -> None:
    steps = next((n for part, n in STEPS.items() if part in name), 400)
    fixed = ["surrogate.boundaries=[4,8]", f"trainer.max_steps={steps}", f"seed={name[-1]}"]
    blocks = [f"task.blocks=runs/samples/{name.replace('-250', '-blocks-250')}"] if name.startswith("tuned") else []
    (job,) = sweeps.jobs("train", [*ARMS[name], *fixed, *blocks])
    assert identity(main.parse(jobs[name])) == identity(main.parse(job.config))


def test_stage_2_finds_the_blocks_of_stage_1(jobs: dict[str, Any]) -> None:
    needed = {job.task.blocks for job in jobs.values() if job.task.get("blocks")}
    assert needed == {f"{job.paths.runs}/{job.study}/{name}" for name, job in jobs.items() if "-blocks-" in name}


@pytest.mark.slow
def test_from_stage_1_to_the_table(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", "-m", "experiment=samples/blocks", *QUIET, "grid.arm=paper", "seed=0")
    call("train", "-m", "experiment=samples/recipe", *QUIET, "grid.arm=paper", "seed=0")
    call("train", "-m", "experiment=samples/fast", *QUIET, "seed=0")
    call("train", "-m", "experiment=samples/without", *QUIET, "grid.without=growth", "seed=0")
    call("train", "-m", "experiment=samples/without_muon", *QUIET, "seed=0")
    call("report", "experiment=samples")
    report = tmp_path / "runs" / "samples" / "report"
    cells = {(c["row"], c["column"]): c for c in json.loads((report / "table.json").read_text())["cells"]}
    assert (cells["growth", "cls"]["n"], cells["adamw", "cls"]["n"], cells["random", "cls"]["n"]) == (1, 1, 0)
