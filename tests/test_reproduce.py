"""All stages of a study in one call, on this machine; tests/test_slurm.py has them on SLURM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from raptor.utils.files import read_json
from tests.conftest import start

EXPERIMENT = """# @package _global_
study: tiny
stages:
  - phases study=tiny name=phases k=[2] images=64
  - train -m study=tiny seed=0,1 surrogate.k=2 surrogate.phases_file=runs/tiny/phases/phases.json
"""
SHORT = ["trainer.max_steps=2", "trainer.val_check_interval=2"]


def reproduce(cwd: Path, *arguments: str) -> tuple[int, str]:
    options = ["--config-dir", "mine", "experiment=tiny", "hydra.launcher.jobs=2", "hydra/launcher=local", *arguments]
    process = start("reproduce", *options, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=300)
    return process.returncode, " ".join(said.split())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "tiny.yaml").write_text(EXPERIMENT)
    return tmp_path


def attempts(study: Path) -> list[int]:
    return sorted((read_json(path) or {})["attempt"] for path in study.glob("finetune-*/status.json"))


@pytest.mark.slow
def test_only_what_is_missing_runs(place: Path) -> None:
    study, train = place / "runs" / "tiny", f"train=[{','.join(map(repr, SHORT))}]"
    code, said = reproduce(place, train)
    assert code == 0, said
    assert "the report of 3 jobs" in said
    page = study / "report" / "report.html"
    assert attempts(study) == [1, 1]
    written = page.stat().st_mtime_ns
    code, said = reproduce(place, train)
    assert code == 0
    assert page.stat().st_mtime_ns == written  # nothing ran
    (lost, _) = sorted(study.glob("finetune-*"))
    shutil.rmtree(lost)
    code, said = reproduce(place, train)
    assert code == 0
    assert lost.name in said
    assert attempts(study) == [1, 1]
    assert page.stat().st_mtime_ns > written
    # a stage that cannot work fails those that build on it, by name
    shutil.rmtree(study)
    stage = place / "mine" / "experiment" / "tiny.yaml"
    stage.write_text(EXPERIMENT.replace("images=64", "images=64 distance=nowhere.npy"))
    code, said = reproduce(place, train)
    assert code == 1
    assert "surrogate.phases_file=runs/tiny/phases/phases.json" in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("study=other", "study=other: expected the study of the experiment"),
        ("stages=['fit seed=0']", "expected a line that begins with extract or train"),
        ("stages=[]", "expected an experiment with stages"),
        ("train=['trainer.max_step=2']", "trainer.max_step=...: expected a key that exists"),
        ("hydra/launcher=basic", "expected a key that exists"),
    ],
)
def test_mistakes(place: Path, wrong: str, message: str) -> None:
    code, said = reproduce(place, wrong)
    assert code == 1
    assert message in said
    assert not (place / "runs" / "tiny").exists()
