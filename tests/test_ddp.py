"""Two processes (gloo, CPU) against one, at the same global batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raptor.utils.files import read_json
from tests.conftest import start

COMMON = [
    "trainer.max_steps=20",
    "trainer.val_check_interval=20",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "data.batch_size=8",
    "name=run",
]
TASKS = {
    "distill": ["task=distill", "surrogate.phases=[[7,10],[10,12]]"],
    "finetune": ["task=finetune", "surrogate.boundaries=[5]"],
}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_have_the_losses_of_one(call: Callable[..., None], tmp_path: Path, task: str) -> None:
    losses, metrics = [], []
    for devices in (1, 2):
        runs = tmp_path / str(devices)
        many = [f"trainer.devices={devices}", f"trainer.strategy={'ddp' if devices > 1 else 'auto'}"]
        arguments = [*COMMON, *TASKS[task], *many, f"paths.runs={runs}"]
        if devices == 1:
            call("train", *arguments)
        else:
            assert start("train", *arguments, cwd=tmp_path).wait(timeout=300) == 0
        folder = runs / "default" / "run"
        table = pd.read_csv(folder / "metrics" / "metrics.csv")
        columns = [name for name in table if str(name).startswith("train/")]
        losses.append(table[["step", *columns]].dropna().to_numpy())
        metrics.append((read_json(folder / "result.json") or {})["metrics"])
        assert (read_json(folder / "status.json") or {})["state"] == "finished"
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-7)
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("task=linear_probe", "trainer.devices=2: expected one process for task=linear_probe (trainer.num_nodes=1)"),
        ("data.batch_size=7", "data.batch_size=7: expected a multiple of 2, the number of processes"),
    ],
)
def test_what_two_processes_cannot_do_is_refused_before_they_start(
    call: Callable[..., None], wrong: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=re.escape(message)):
        call("train", wrong, "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_steps=1")
