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
from raptor.files import CONFIGS
from raptor.results.dynamics_findings import judge_findings
from tests.conftest import start

Call = Callable[..., None]
SMALL = ["images=24", "shown=4", "perturbation.images=2", "perturbation.sizes=[0.1]", "jacobian.images=1"]
TRAIN = ["trainer.max_steps=2", "trainer.enable_progress_bar=false", "surrogate.boundaries=[5]", "name=k2"]


@pytest.fixture(autouse=True)
def loud_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let errors through as exceptions, not as the exit of a process."""
    monkeypatch.setattr("raptor.cli.explain", lambda error, config_name: None)


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
    assert {"convergence", "speed", "kicks_cls", "basins", "hypothesis", "jacobians", "projection_patches"} <= figures
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures)
    assert "24 images of digits (val)" in page
    findings = {(f["finding"], f["tokens"]): f for f in result["findings"]}
    assert set(findings["Classes have angular basins", "cls"]["values"]) == {"teacher", "k=2", "untrained"}

    call("report", "analysis=dynamics", "study=default")
    table = (tmp_path / "runs" / "default" / "report" / "findings.md").read_text()
    assert "Classes have angular basins" in table
    assert "d: vit_tiny_patch16_224, 24 images of digits (val)" in table


def test_killed_it_continues_with_the_next_network(call: Call, tmp_path: Path) -> None:
    process = start("dynamics", "name=killed", *SMALL, cwd=tmp_path)
    first = tmp_path / "runs" / "default" / "killed" / "networks" / "teacher.npz"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = first.stat().st_mtime_ns
    call("dynamics", "name=killed", *SMALL)
    assert first.stat().st_mtime_ns == written  # what was measured is not measured again
    result = json.loads((first.parents[1] / "result.json").read_text())
    assert list(result["networks"]) == ["teacher", "untrained"]

    (first.parents[1] / "result.json").unlink()  # as if it had been stopped before the end
    call("dynamics", "name=killed", *SMALL, "images=20", "untrained=false")
    with np.load(first, allow_pickle=False) as arrays:  # made with other settings, so measured anew
        assert len(arrays["curves/norm/patches"]) == 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["images=3"], "images=3"),
        (["batch_size=0"], "batch_size=0"),
        (["split=test"], "split='test'"),
        (["k=40"], "k=40"),
        (["operators.rnk=3"], "unknown key 'operators.rnk'|rnk"),
        (["tokens=[hats]"], "hats"),
        (["surrogates=[package:digits_vit]"], "holds no surrogate of 12 layers"),
        (["surrogates=[runs/default/none]"], "none"),
    ],
)
def test_mistakes_are_named(call: Call, overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        call("dynamics", *SMALL, *overrides)


def test_report_of_a_study_without_dynamics(call: Call) -> None:
    call("phases", "images=40", "k=2")
    with pytest.raises(ConfigError, match=r"no finished run of python -m raptor\.dynamics"):
        call("report", "analysis=dynamics", "study=default")


def arrays_of(gamma: np.ndarray, speed: np.ndarray) -> dict[str, np.ndarray]:
    steps = speed.mean(axis=0)
    distance = np.abs(np.cumsum(steps)[:, None] - np.cumsum(steps)[None, :])
    return {
        "curves/convergence/cls": gamma,
        "curves/speed/cls": speed,
        "boundaries": np.array([4]),
        "distance": distance,
    }


def test_verdicts_on_curves_that_are_known() -> None:
    layers = np.linspace(-6, 6, 13)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(50, 13))
    s_curve = 1 / (1 + np.exp(-1.5 * layers)) + noise
    straight = np.linspace(0, 1, 13) + noise
    concave = np.sqrt(np.linspace(0, 1, 13)) + noise
    jumps = np.full((50, 12), 0.1) + 0.2 * (np.arange(12) == 4) + noise[:, 1:]
    flat = np.full((50, 12), 0.1) + noise[:, 1:]

    def verdict(teacher: dict[str, np.ndarray], untrained: dict[str, np.ndarray], title: str) -> str:
        found = judge_findings({"teacher": teacher, "untrained": untrained})
        return next(row["verdict"] for row in found if row["finding"].startswith(title))

    known, control = arrays_of(s_curve, jumps), arrays_of(concave, flat)
    assert verdict(known, control, "Directions converge") == "shows"
    assert verdict(known, control, "Speed jumps") == "shows"
    assert verdict(control, known, "Directions converge") == "does not show"
    assert verdict(known, known, "Directions converge") == "shows, as without training"
    assert verdict(arrays_of(straight, flat), control, "Directions converge") in ("open", "does not show")


def test_experiments_name_runs_of_their_study() -> None:
    stages = yaml.safe_load((CONFIGS / "experiment" / "dynamics.yaml").read_text())["stages"]
    for path in (CONFIGS / "experiment" / "dynamics").glob("*.yaml"):
        named = any(f"dynamics/{path.stem}" in stage for stage in stages)
        assert named is (path.stem != "clip"), path  # whose weights a user has to bring


@pytest.mark.parametrize("layers", [4, 8, 10, 12, 16, 40])
def test_a_straight_rise_is_no_s_curve_at_any_depth(layers: int) -> None:
    straight = np.broadcast_to(np.linspace(0, 1, layers + 1), (20, layers + 1))
    arrays = {"curves/convergence/cls": straight, "boundaries": np.array([2])}
    (row,) = judge_findings({"teacher": arrays})
    assert row["values"]["teacher"]["mean"] == pytest.approx(0, abs=1e-9)
    assert row["verdict"] in ("open", "does not show")


def test_kicks_that_only_lose_angle_as_norms_grow_correct_nothing() -> None:
    angles = np.tile([0.01, 0.005], (10, 1)) * np.random.default_rng(0).uniform(0.9, 1.1, size=(10, 1))
    arrays = {"boundaries": np.array([1]), "kicks/random/0/0.01/cls": angles}

    def verdict(carried: float) -> str:
        (row,) = judge_findings({"teacher": {**arrays, "carried/random/0/0.01/cls": carried * angles}})
        return str(row["verdict"])

    assert verdict(1.0) == "open"  # shrinks as it would if carried along unchanged
    assert verdict(2.0) == "shows"
    assert verdict(0.5) == "does not show"
