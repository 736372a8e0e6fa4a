"""Ends of a training: logged metrics, hyper-parameters, time limits, callbacks that stop early."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

SMALL = ("trainer.enable_progress_bar=false", "surrogate.boundaries=[5]", "data.batch_size=8")


@pytest.mark.slow
def test_the_final_validation_reaches_the_loggers(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", *SMALL, "trainer.max_steps=3", "trainer.val_check_interval=2", "name=a")
    run = tmp_path / "runs" / "default" / "a"
    result = json.loads((run / "result.json").read_text())
    last = pd.read_csv(run / "metrics" / "metrics.csv").set_index("step").loc[3]
    assert last["val/top1"] == pytest.approx(result["metrics"]["val/top1"])
    hyperparameters = json.loads((run / "metrics" / "hparams.json").read_text())
    assert hyperparameters["task"] == "finetune"
    assert hyperparameters["data.batch_size"] == 8
    assert result["history"]["val/top1"][-1] == [3, pytest.approx(result["metrics"]["val/top1"])]


@pytest.mark.slow
def test_a_time_limit_leaves_a_run_that_continues(call: Callable[..., None], tmp_path: Path) -> None:
    run = tmp_path / "runs" / "default" / "a"
    arguments = (*SMALL, "trainer.max_steps=12", "trainer.val_check_interval=100", "name=a")
    with pytest.raises(SystemExit, match=r"trainer\.max_time=.*at step \d+ of 12.*it continues"):
        call("train", *arguments, "trainer.max_time=00:00:00:00")
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "interrupted"
    assert "max_time" in status["error"]
    assert not (run / "result.json").exists()
    call("train", *arguments)
    assert json.loads((run / "result.json").read_text())["steps"] == 12


@pytest.mark.slow
def test_a_callback_that_ends_a_training_is_reported(call: Callable[..., None], tmp_path: Path) -> None:
    stop = "{_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/top1,patience:1,mode:max,min_delta:10.0}"
    steps = ("trainer.max_steps=12", "trainer.val_check_interval=1")
    call("train", *SMALL, *steps, f"+callbacks.stop={stop}", "name=a", "trainer.limit_val_batches=1")
    result = json.loads((tmp_path / "runs" / "default" / "a" / "result.json").read_text())
    assert result["steps"] + result["ended_early"] == 12
    assert result["ended_early"] > 0
