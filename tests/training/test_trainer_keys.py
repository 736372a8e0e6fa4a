"""Each key of Lightning's trainer works as documented, or is refused with a reason."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl

from raptor.data.digits import Digits
from raptor.errors import ConfigError
from raptor.runs.status import rows_of
from raptor.training.options import TrainerOptions
from raptor.training.refused import REFUSED
from raptor.training.trainer import build_trainer
from raptor.utils.options import keys, parse

SMALL = ("trainer.enable_progress_bar=false", "surrogate.boundaries=[5]", "data.batch_size=8", "trainer.max_steps=6")


def trainer(**values: Any) -> TrainerOptions:
    return parse(TrainerOptions, {"max_steps": 6, **values}, "trainer")


def test_every_key_of_lightning_is_an_option_or_refused() -> None:
    ours = {key.name for key in keys(TrainerOptions)}
    assert not ours & REFUSED.keys()
    assert set(inspect.signature(pl.Trainer).parameters) <= ours | REFUSED.keys()


@pytest.mark.parametrize("key", REFUSED)
def test_refused_keys_say_what_stands_in_their_place(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}=1: expected no .*\. Fix: "):
        trainer(**{key: 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("limit_train_batches", 0, "null: batches are a function of seed and step"),
        ("limit_train_batches", 0.5, r"set trainer\.max_steps \(0 evaluates only\)"),
        ("overfit_batches", 1, "0: batches are a function of seed and step"),
        ("overfit_batches", 0.5, "0: batches"),
        ("limit_val_batches", 1.5, r"a share up to 1\.0\. Fix: set trainer\.limit_val_batches=2"),
        ("val_check_interval", 2.5, r"a share up to 1\.0\. Fix: set trainer\.val_check_interval=2"),
        ("fast_dev_run", -1, "true, false or a number of batches"),
        ("max_time", "soon", "DD:HH:MM:SS, a mapping"),
        ("max_time", "1:2", "DD:HH:MM:SS"),
        ("max_time", {"hats": 5}, "DD:HH:MM:SS"),
        ("max_time", {"hours": "two"}, "DD:HH:MM:SS"),
        ("max_time", {"hours": -1}, "DD:HH:MM:SS"),
    ],
)
def test_values_that_would_do_nothing_or_end_in_lightning(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}=.*: expected .*{message}"):
        trainer(**{key: value})


def test_a_trial_of_nothing_is_refused() -> None:
    for length in ({"max_steps": 0}, {"max_epochs": 0}):
        with pytest.raises(ConfigError, match=r"^trainer\.fast_dev_run=true: expected false where nothing is trained"):
            trainer(fast_dev_run=True, **length)
    for valid in ({"max_time": "00:02:00:00"}, {"max_time": {"hours": 2}}, {"limit_val_batches": 0.5}):
        trainer(**valid)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"devices": 0}, "devices=0"),
        ({"devices": "some"}, "devices=some"),
        ({"accelerator": "tpu"}, "accelerator=tpu"),
        ({"accelerator": "magic"}, "accelerator=magic"),
        ({"strategy": "magic"}, "strategy=magic"),
        ({"strategy": "fsdp"}, "strategy=fsdp"),
    ],
)
def test_what_lightning_refuses_names_the_key(tmp_path: Path, values: dict[str, Any], key: str) -> None:
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    folder: Any = SimpleNamespace(path=tmp_path)
    with pytest.raises(ConfigError, match=r"^trainer\.num_nodes=2: expected 1, as no processes were started"):
        build_trainer(trainer(num_nodes=2), {}, {}, folder, data)
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}: expected settings that Lightning takes \("):
        build_trainer(trainer(**values), {}, {}, folder, data)


def test_a_trial_says_that_it_is_one(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", *SMALL, "trainer.fast_dev_run=2", "name=a")
    run = tmp_path / "runs" / "default" / "a"
    result, status = (json.loads((run / f"{name}.json").read_text()) for name in ("result", "status"))
    assert (result["steps"], result["ended_early"]) == (2, 4)
    assert (status["state"], status["ended_early"]) == ("finished", 4)
    assert "trainer.fast_dev_run ended the training at step 2 of 6" in (run / "log.txt").read_text()
    (row,) = rows_of(run, dict)
    assert (row.state.name, row.state.why) == ("done", "ended 4 steps early")


def test_shares_of_training_and_validation(call: Callable[..., None], tmp_path: Path) -> None:
    shares = ("trainer.val_check_interval=0.34", "trainer.limit_val_batches=0.5")
    with pytest.raises(SystemExit, match=r"limit_val_batches=0\.5: expected a share that is a batch or more; .* 1 "):
        call("train", *SMALL, *shares, "name=a")
    # half of 4 batches of 90 images, after every 2 of 6 steps
    call("train", *SMALL, *shares, "data.eval_batch_size=90", "name=a")
    whole = ("trainer.val_check_interval=2", "trainer.limit_val_batches=2", "data.eval_batch_size=90")
    call("train", *SMALL, *whole, "name=b")
    found, expected = (
        json.loads((tmp_path / "runs" / "default" / name / "result.json").read_text()) for name in ("a", "b")
    )
    assert len(found["history"]["val/top1"]) == 3 + 1  # and the final validation
    for key in ("metrics", "weights_sha256", "history"):
        assert found[key] == expected[key]


@pytest.mark.parametrize("without", ["logger=null", "callbacks=null"])
def test_a_training_without_loggers_or_callbacks(call: Callable[..., None], tmp_path: Path, without: str) -> None:
    call("train", *SMALL[:3], "trainer.max_steps=2", "trainer.limit_val_batches=1", without, "name=a")
    result = json.loads((tmp_path / "runs" / "default" / "a" / "result.json").read_text())
    assert result["steps"] == 2
    assert bool(result["history"]) is (without != "logger=null")
