"""A study as studies are: other methods, repeats, a diverged run, runs that failed, and folders nobody can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raptor.reporting.overview import overview, rows
from raptor.reporting.study import write_report
from raptor.runs.study import Study
from tests.reporting.runs import put, put_unfinished

MODEL = {"k": 2, "boundaries": [5]}
PLAIN: dict[str, Any] = {"surrogate.k": 2, "task.loss": "plain", "task.loss.cls": 0.45}
FAST: dict[str, Any] = {"surrogate.k": 2, "task.loss": "scaled", "task.loss.patches": 0.5, "task.rollout_growth": 0.6}


def surrogate(root: Path, name: str, seed: int, r2: float | None, options: dict[str, Any]) -> None:
    metrics = {"val/top1": 0.9, "val/r2_cls": r2}
    layers = {"0-2": {"r2": {"cls": [r2, r2]}}}
    put(root, name, "finetune", MODEL, metrics, seed, options, layers=layers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs" / "mixed"
    surrogate(root, "a0", 0, 0.8, PLAIN)
    surrogate(root, "a0_again", 0, 0.6, PLAIN)  # its mean with a0 is what seed 0 counts
    surrogate(root, "a1", 1, 0.9, PLAIN)
    surrogate(root, "diverged", 2, None, PLAIN)
    put_unfinished(root, "stopped", "finetune", 3, PLAIN, state="running")
    surrogate(root, "fast0", 0, 0.5, FAST)
    put_unfinished(
        root, "long0", "finetune", 0, PLAIN | {"trainer.max_steps": 99}, state="failed", error="RuntimeError: x"
    )
    return root


def test_each_run_is_where_it_belongs(root: Path, tmp_path: Path) -> None:
    markdown = write_report(Study(root), tmp_path / "out", "Mixed")
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("backbone")
    plain = table.loc["k=2, loss plain"]
    assert plain["r2_cls_mean"] == pytest.approx((0.7 + 0.9) / 2)
    assert (plain["r2_cls_n"], plain["r2_cls_expected"], plain["seeds"]) == (2, 4, 3)
    assert plain["notes"] == "2 repeats of seed 0, 1 running"
    assert table.loc["k=2, loss scaled, rollout_growth 0.6", "r2_cls_mean"] == 0.5
    failed = table.loc["k=2, loss plain, steps 99"]
    assert (failed["seeds"], failed["notes"]) == (0, "1 failed")
    lines = {line.split("|")[1].strip(): line for line in markdown.splitlines()}
    assert "0.800 ± 0.141 (2 of 4, 2 missing)" in lines["k=2, loss plain"]
    assert "missing" in lines["k=2, loss plain, steps 99"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "RuntimeError: x" in page
    assert "stopped (running)" in page


def test_a_probe_of_other_seeds_is_no_repeat(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "s"
    for seed in (0, 1):
        surrogate(root, f"a{seed}", seed, 0.5, PLAIN)
        options = {"task.backbone": f"{root}/a{seed}"}  # both probes have seed 0, what they read differs
        put(root, f"p{seed}", "linear_probe", {"backbone": {"label": "k=2"}}, {"val/top1": 0.6 + seed / 10}, 0, options)
    row = rows(Study(root)).set_index("backbone").loc["k=2"]
    assert (row["probe_n"], row["notes"]) == (2, "")
    assert row["probe_mean"] == pytest.approx(0.65)


def test_probes_with_other_settings_are_rows_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "s"
    surrogate(root, "a0", 0, 0.5, PLAIN)
    for steps, top1 in ((10, 0.5), (20, 0.75)):
        settings = {"trainer.max_steps": steps}
        put(root, f"p{steps}", "linear_probe", {"backbone": {"label": "k=2"}}, {"val/top1": top1}, 0,
            settings | {"task.backbone": f"{root}/a0"})  # fmt: skip
        if steps == 20:
            put(root, "t", "linear_probe", {"backbone": {"label": "teacher"}}, {"val/top1": 1.0}, 0, settings)
    table = rows(Study(root)).set_index("backbone")
    assert table.loc["k=2; probe steps 20", "relative_mean"] == pytest.approx(0.75)
    assert table.loc["k=2; probe steps 10", "relative_n"] == 0  # the teacher was not probed in 10 steps
    shown = overview(Study(root), rows(Study(root))).frame.set_index("backbone")
    assert shown.loc["k=2; probe steps 10", "probe, share of the teacher's (%)"] == "missing"


def test_labels_tell_all_groups_apart(tmp_path: Path) -> None:
    """By as many options as that takes, also by those of one's own loss, and nobody is averaged with another."""
    root = tmp_path / "runs" / "s"
    own: dict[str, Any] = {"task.loss": "mine:Loss@0123", "task.loss.value": 1.0}
    studies: list[dict[str, Any]] = [
        PLAIN,
        PLAIN | own,
        PLAIN | own | {"task.loss.value": 2.0},
        *(PLAIN | {key: 7} for key in ("task.lr", "trainer.clip", "data.batch_size", "surrogate.images")),
    ]
    for i, options in enumerate(studies):
        surrogate(root, f"a{i}", 0, i / 10, options)
    labels = [group.label for group in Study(root).surrogates()]
    assert len(set(labels)) == len(labels) == 7
    assert any("value 2.0" in label for label in labels)


def test_shares_of_a_teacher_that_scores_nothing_are_missing(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "s"
    surrogate(root, "a0", 0, 0.5, PLAIN)
    put(
        root, "p", "linear_probe", {"backbone": {"label": "k=2"}}, {"val/top1": 0.5}, 0, {"task.backbone": f"{root}/a0"}
    )
    put(root, "t", "linear_probe", {"backbone": {"label": "teacher"}}, {"val/top1": 0.0}, 0)
    table = rows(Study(root)).set_index("backbone")
    assert (table.loc["k=2", "probe_mean"], table.loc["k=2", "relative_n"]) == (0.5, 0)
    assert "missing" in write_report(Study(root), tmp_path / "out", "Nothing")


def test_folders_that_cannot_be_read_take_nothing_down(root: Path, tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        (root / name).mkdir()
        return root / name

    (folder("loop") / "status.json").symlink_to("status.json")
    (folder("a_folder_in_its_place") / "status.json").mkdir()
    (folder("bytes") / "status.json").write_bytes(b"\xff\xfe\x00")
    (folder("list") / "status.json").write_text('{"state": "finished"}')
    (root / "list" / "result.json").write_text("[1, 2]")
    (folder("wrong_kinds") / "status.json").write_text('{"state": "finished"}')
    (root / "wrong_kinds" / "result.json").write_text('{"name": "x", "task": "finetune", "model": 3, "metrics": {}}')
    surrogate(root, "no_configuration", 5, 0.1, PLAIN)
    (root / "no_configuration" / "identity.json").write_text("a: [")
    surrogate(root, "odd_curves", 6, 0.9, PLAIN)
    result = json.loads((root / "odd_curves" / "result.json").read_text())
    result |= {"layers": {"0-2": {"r2": {"cls": [None, None, 0.5]}}}, "history": {"train/loss": "?"}, "data": None}
    (root / "odd_curves" / "result.json").write_text(json.dumps(result))

    study = Study(root)
    states = {record.name: record.state for record in study.records}
    for name in ("loop", "a_folder_in_its_place", "bytes", "list", "wrong_kinds"):
        assert states[name] == "unreadable"
    write_report(study, tmp_path / "out", "Mixed")
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["backbone"].str.contains("run no_configuration").sum() == 1  # not averaged with anything


def test_a_report_of_runs_that_all_diverged(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "s"
    surrogate(root, "a0", 0, None, PLAIN)
    surrogate(root, "a1", 1, float("nan"), PLAIN)
    markdown = write_report(Study(root), tmp_path / "out", "Diverged")
    assert "missing" in markdown
    assert "nan" not in markdown.lower()
