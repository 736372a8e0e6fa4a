"""``raptor.dynamics`` as users call it: numbers beside figures, continued where it was killed, clear about mistakes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from raptor.errors import ConfigError
from raptor.utils.files import CONFIGS
from tests.conftest import start

Call = Callable[..., None]
SMALL = [
    "images=24",
    "shown=4",
    "perturbation.images=2",
    "perturbation.sizes=[0.1]",
    "jacobian.images=1",
    "jacobian.values=1",
]
FEW = ["images=24", "shown=4", "ranks=false", "perturbation.images=0", "jacobian.images=0"]
TRAIN = ["trainer.max_steps=2", "trainer.enable_progress_bar=false", "surrogate.boundaries=[5]", "name=k2"]


@pytest.fixture(autouse=True)
def loud_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let errors through as exceptions, not as the exit of a process."""
    monkeypatch.setattr("raptor.cli.command.explain", lambda *_: None)


@pytest.mark.slow
def test_teacher_surrogate_and_untrained_network(call: Call, tmp_path: Path) -> None:
    call("train", *TRAIN)
    call("dynamics", "surrogates=[runs/default/k2]", "boundaries=[5]", "name=d", *SMALL)
    folder = tmp_path / "runs" / "default" / "d"
    result = json.loads((folder / "result.json").read_text())
    assert list(result["networks"]) == ["teacher", "k=2", "untrained"]
    assert result["boundaries"] == [5]
    with np.load(folder / "networks" / "k_2.npz", allow_pickle=False) as arrays:
        assert arrays["curves/convergence/cls"].shape == (24, 13)
        assert arrays["curves/convergence/cls"][:, -1] == pytest.approx(np.ones(24))
        shown = result["networks"]["k=2"]["hypothesis/surrogate/relative"]
        assert shown["mean"] == pytest.approx(arrays["hypothesis/surrogate/relative"].mean(0).tolist())
        assert shown["n"] == 24
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert "relative to the norm of the teacher's layer" in (folder / "errors.md").read_text()
    assert {
        "convergence",
        "speed",
        "perturbations_cls",
        "rollouts",
        "basins",
        "hypothesis",
        "jacobians",
        "projection_patches",
    } <= figures
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures)
    assert "24 images of digits (val)" in page
    findings = {(f["finding"], f["tokens"]): f for f in result["findings"]}
    assert set(findings["Classes have angular basins at the end", "cls"]["values"]) == {"teacher", "k=2", "untrained"}

    call("report", "analysis=dynamics", "study=default")
    table = (tmp_path / "runs" / "default" / "report" / "findings.md").read_text()
    assert "Classes have angular basins" in table
    assert "d: vit_tiny_patch16_224, 24 images of digits (val)" in table


@pytest.mark.slow
def test_killed_it_continues_with_the_next_network(call: Call, tmp_path: Path) -> None:
    process = start("dynamics", "name=killed", *FEW, cwd=tmp_path)
    first = tmp_path / "runs" / "default" / "killed" / "networks" / "teacher.npz"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = first.stat().st_mtime_ns
    call("dynamics", "name=killed", *FEW)
    assert first.stat().st_mtime_ns == written  # what was measured is not measured again
    result = json.loads((first.parents[1] / "result.json").read_text())
    assert list(result["networks"]) == ["teacher", "untrained"]

    (first.parents[1] / "result.json").unlink()  # as if it had been stopped before the end
    call("dynamics", "name=killed", *FEW, "images=20", "untrained=false")
    with np.load(first, allow_pickle=False) as arrays:  # made with other settings, so measured anew
        assert len(arrays["curves/norm/patches"]) == 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images=3"], "images=3"),
        (["batch_size=0"], "batch_size=0"),
        (["split=test"], "split=test: expected val or train"),
        (["k=40"], "k=40"),
        (["operators.rnk=3"], "unknown key 'operators.rnk'|rnk"),
        (["tokens=[hats]"], "hats"),
        (["surrogates=[package:digits_vit]"], "expected a surrogate of 12 layers"),
        (["surrogates=[runs/default/none]"], "none"),
    ],
)
def test_mistakes_are_named(call: Call, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        call("dynamics", *SMALL, *overrides)


def test_report_of_a_study_without_dynamics(call: Call) -> None:
    call("phases", "images=40", "k=2")
    with pytest.raises(ConfigError, match=r"expected a study with a finished run of python -m raptor\.dynamics"):
        call("report", "analysis=dynamics", "study=default")


def test_experiments_name_runs_of_their_study() -> None:
    stages = yaml.safe_load((CONFIGS / "experiment" / "dynamics.yaml").read_text())["stages"]
    for path in (CONFIGS / "experiment" / "dynamics").glob("*.yaml"):
        named = any(f"dynamics/{path.stem}" in stage for stage in stages)
        assert named is not path.stem.startswith("clip"), path  # whose weights a user has to bring
