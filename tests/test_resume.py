"""``kill -9`` at random moments, then the same command: the weights of an uninterrupted run, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import start
from tests.trees import lay_out

STEPS = 60
COMMON = [
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=10",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
    "callbacks.checkpoint.every_n_steps=5",
    "data.batch_size=8",
    "name=run",
]
STAGES = {
    "distill": ["task=distill", "surrogate.phases=[[7,10],[10,12]]", "task.input_noise=0.1"],
    "finetune": ["task=finetune", "surrogate.boundaries=[5]"],
    "partitions": ["task=partitions", "task.ks=[2]", "task.swaps=1", "surrogate.images=200"],
    "fast": ["method=fast", "surrogate.boundaries=[4,8]", "trainer.recompute=true"],
    "dense": [
        "protocol=mini_nyuv2",
        "teacher=mini_vit",
        "teacher.options.depth=2",
        "paths.data=trees",
        "trainer.max_epochs=null",
        "trainer.check_val_every_n_epoch=null",
        "trainer.limit_val_batches=1.0",
    ],
    "probe": ["task=linear_probe", "task.cache=false", "task.learning_rates=[1e-2,1e-3]"],
    "cached": ["task=distill", "surrogate.phases=[[3,6]]", "activations=cached"],
    # stochastic depth, accumulation and augmentation draw random numbers too
    "classifier": [
        "task=classifier",
        "teacher.weights=null",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=15",  # batches, so that some validations fall between two steps
        "+data.augment={_target_: torchvision.transforms.v2.RandomHorizontalFlip}",
    ],
}
KILLS = {"finetune": 2}  # the others once


def checkpointed(folder: Path, since: float) -> bool:
    path = folder / "checkpoints" / "last.ckpt"
    return path.is_file() and path.stat().st_mtime > since


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_runs_end_in_the_same_weights(call: Callable[..., None], tmp_path: Path, stage: str) -> None:
    arguments = [*COMMON, *STAGES[stage]]
    if stage == "classifier":
        arguments[-1] = "++" + arguments[-1].lstrip("+")
    if stage == "cached":
        extract = ["layers=[3,4,5,6]", "shard_size=100", "data.batch_size=8"]
        call("extract", *extract)
    if stage == "dense":
        lay_out(tmp_path / "trees")
    rng = random.Random(stage)
    folder = tmp_path / "killed" / "default" / "run"
    kills = 0
    while kills < KILLS.get(stage, 1):
        since = time.time()
        process = start("train", *arguments, f"paths.runs={tmp_path / 'killed'}", cwd=tmp_path)
        while process.poll() is None and not checkpointed(folder, since):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.4))
        if process.poll() is not None:
            break  # it was faster than we are
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not (folder / "result.json").exists()
        assert json.loads((folder / "status.json").read_text())["state"] == "running"
    assert kills > 0
    call("train", *arguments, f"paths.runs={tmp_path / 'killed'}")
    call("train", *arguments, f"paths.runs={tmp_path / 'whole'}")
    uninterrupted = tmp_path / "whole" / "default" / "run"
    results = [json.loads((path / "result.json").read_text()) for path in (uninterrupted, folder)]
    assert (folder / "model.safetensors").read_bytes() == (uninterrupted / "model.safetensors").read_bytes()
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0].get("selection") == results[1].get("selection")
    assert [r["steps"] for r in results] == [STEPS, STEPS]
    assert results[1]["attempts"] == kills + 1
    # the curves have neither gap nor doubled step
    assert results[0]["history"] == results[1]["history"]


@pytest.mark.slow
def test_a_terminated_run_says_so_and_does_not_look_successful(tmp_path: Path) -> None:
    arguments = [*COMMON, "trainer.max_steps=5000", "surrogate.boundaries=[5]"]
    process = start("train", *arguments, f"paths.runs={tmp_path}", cwd=tmp_path)
    folder = tmp_path / "default" / "run"
    while process.poll() is None and not checkpointed(folder, 0.0):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert not (folder / "result.json").exists()
