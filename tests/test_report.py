"""``python -m raptor.report`` as it is called: alone, by study, by experiment, in any locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reporting.runs import put

Call = Callable[..., None]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def ended(runs: Path, study: str, time: str, **more: object) -> None:
    """Write a study of one finished run."""
    put(runs / study, "probe", "linear_probe", {"backbone": {"label": "k=2"}}, {"val/top1": 0.75}, **more)  # type: ignore[arg-type]
    (runs / study / "probe" / "status.json").write_text(json.dumps({"state": "finished", "updated": time}))


def test_alone_it_reports_the_study_whose_run_ended_last(call: Call, runs: Path) -> None:
    ended(runs, "early", "2026-01-01T10:00:00+00:00")
    ended(runs, "2024", "2026-01-02T10:00:00+00:00")  # a number, as Hydra reads it
    (runs / "loop").symlink_to("loop")
    call("report")
    assert not (runs / "early" / "report").exists()
    assert "75.0" in (runs / "2024" / "report" / "table.md").read_text(encoding="utf-8")
    call("report")  # the report itself is no run that ended
    call("report", "study=early", "output=elsewhere")
    assert (runs.parent / "elsewhere" / "report.html").is_file()


def test_alone_it_lists_the_studies_where_none_was_last(call: Call, runs: Path) -> None:
    for study in ("one", "two"):
        ended(runs, study, "2026-01-01T10:00:00+00:00")
    with pytest.raises(SystemExit, match=r"study=null: expected .* none of them ended last: one, two\. Fix: "):
        call("report")
    with pytest.raises(SystemExit, match=r"study=null: expected the name of a study with a finished run.* Fix: "):
        call("report", "paths.runs=nowhere")


def test_a_study_called_like_an_experiment_has_its_table(call: Call, runs: Path) -> None:
    ended(runs, "table1_mini", "2026-01-01T10:00:00+00:00")
    folder = runs / "table1_mini" / "report"
    call("report", "table=null")
    assert not (folder / "table.tex").exists()
    call("report", "title=Mine")
    assert "objects top-1" in (folder / "table.tex").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in (folder / "report.html").read_text(encoding="utf-8")


def test_without_an_experiment_and_without_runs_there_is_one_message(call: Call) -> None:
    with pytest.raises(SystemExit, match=r"^error: study=null: expected"):
        call("report", "experiment=null")
    with pytest.raises(SystemExit, match=r"^error: study=x: expected a study with a finished run.* Fix: run its jobs"):
        call("report", "experiment=null", "study=x")


def test_in_a_locale_without_our_characters(runs: Path) -> None:
    for seed in (0, 1):
        metrics = {"val/top1": 0.75 + seed / 100}
        put(runs / "study", f"probe{seed}", "linear_probe", {"backbone": {"label": "k=2"}}, metrics, seed)
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "RAPTOR_COLD": "1"}
    command = [sys.executable, "-m", "raptor.report", "paths.runs=runs"]
    done = subprocess.run(command, cwd=runs.parent, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"75.5 ? 0.7" in done.stdout
    page = (runs / "study" / "report" / "report.html").read_bytes().decode("utf-8")
    assert "75.5 ± 0.7" in page
