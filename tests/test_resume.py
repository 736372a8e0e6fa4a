"""``kill -9`` at random moments, then the same command: the weights of an uninterrupted run, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raptor.utils import distributed
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "signum", "code"), [("finetune", signal.SIGINT, 130), ("probe", signal.SIGTERM, 143)]
)
def test_an_interrupted_run_saves_and_continues_as_if_nothing_had_been(
    call: Callable[..., None], tmp_path: Path, stage: str, signum: int, code: int
) -> None:
    arguments = [*COMMON, *STAGES[stage], "callbacks.checkpoint.every_n_steps=1000", "trainer.val_check_interval=50"]
    process = start("train", *arguments, f"paths.runs={tmp_path / 'stopped'}", cwd=tmp_path, stderr=subprocess.PIPE)
    folder = tmp_path / "stopped" / "default" / "run"
    rows = folder / "metrics" / "metrics.jsonl"
    while process.poll() is None and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.01)
    process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "the same command continues" in " ".join(said.split())
    assert "Traceback" not in said
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert (folder / "checkpoints" / "last.ckpt").is_file()  # between two of the regular ones
    for runs in ("stopped", "whole"):
        call("train", *arguments, f"paths.runs={tmp_path / runs}")
    results = [json.loads((tmp_path / r / "default/run/result.json").read_text()) for r in ("stopped", "whole")]
    for key in ("weights_sha256", "metrics", "history"):
        assert results[0][key] == results[1][key]


@pytest.mark.slow
def test_ranks_left_in_the_environment_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(distributed.STARTER, raising=False)  # of a command that ran in this process
    monkeypatch.setenv("RAPTOR_COLD", "1")  # libraries read ranks when they are imported
    arguments = [*COMMON, "trainer.max_steps=2", "surrogate.boundaries=[5]", f"paths.runs={tmp_path}"]
    process = start("train", *arguments, cwd=tmp_path, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "RANK=1, LOCAL_RANK=1, WORLD_SIZE=2, SLURM_PROCID=1: ignored" in " ".join(said.split())
    folder = tmp_path / "default" / "run"
    made = {"config.yaml", "identity.json", "status.json", "result.json", "model.safetensors", ".lock", "metrics"}
    assert made <= {path.name for path in folder.iterdir()}
