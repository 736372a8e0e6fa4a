"""Runs written by code before identities had a version: they open, resume and report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

FIXTURES = Path(__file__).parent / "fixtures" / "runs_v1"
COMMON = (
    "study=old",
    "recipe.checkpoint_every=5",
    "surrogate.k=1",
    "surrogate.block.mlp_ratio=1.0",
    "surrogate.images=64",
    "trainer.enable_progress_bar=false",
)
FINISHED = (*COMMON, "name=finished", "recipe.steps=20", "trainer.val_check_interval=10")
STOPPED = (*COMMON, "recipe.steps=40", "trainer.val_check_interval=20")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    study = tmp_path / "runs" / "old"
    shutil.copytree(FIXTURES, study, ignore=shutil.ignore_patterns("README.md", "expected.safetensors"))
    return study


def test_a_finished_run_opens_as_finished_and_is_reported(call: Callable[..., None], study: Path) -> None:
    before = {path: path.read_bytes() for path in (study / "finished").rglob("*") if path.is_file()}
    call("train", *FINISHED, "trainer.refresh_every=7", "trainer.log_every_n_steps=5")
    assert {path: path.read_bytes() for path in before} == before
    call("report", "experiment=null", "study=old", f"output={study / 'report'}")
    assert "finished" in (study / "report" / "runs.csv").read_text()


def test_another_configuration_is_still_another_run(call: Callable[..., None], study: Path) -> None:
    with pytest.raises(SystemExit, match=r"recipe|trainer\.max_steps is 20 there, 21 here"):
        call("train", *FINISHED, "recipe.steps=21")
    ema = "+callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging"
    with pytest.raises(SystemExit, match=r"callbacks\..*EMAWeightAveraging"):
        call("train", *FINISHED, ema)


def test_an_interrupted_run_continues_to_the_weights_of_the_former_code(
    call: Callable[..., None], study: Path, tmp_path: Path
) -> None:
    call("train", *STOPPED)
    (stopped,) = study.glob("finetune-*")  # found by its identity: no second folder
    assert json.loads((stopped / "status.json").read_text())["attempt"] == 2
    found, expected = (load_file(f) for f in (stopped / "model.safetensors", FIXTURES / "expected.safetensors"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # to the bit on the processor that wrote it
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    assert json.loads((stopped / "identity.json").read_text())["version"] >= 2
