"""The verdicts of docs/results/dynamics.md are those of the JSON files beside it."""

import shutil
from pathlib import Path

import pytest

from raptor.studies.dynamics.recompute import PAGE, cell, main

DOCS = Path(__file__).parents[3] / "docs" / "results"


def test_the_page_equals_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DOCS), "--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_verdict_that_differs_is_noticed_and_repaired(tmp_path: Path) -> None:
    for path in DOCS.glob("dynamics*"):
        shutil.copy(path, tmp_path)
    page = tmp_path / PAGE
    good = page.read_text(encoding="utf-8")
    page.write_text(good.replace("**does not show**: -0.463", "**shows**: 0.463", 1), encoding="utf-8")
    assert main([str(tmp_path), "--check"]) == 1
    assert main([str(tmp_path)]) == 0
    assert page.read_text(encoding="utf-8") == good


def test_a_cell_by_hand() -> None:
    values = {name: {"mean": mean, "ci95": 0.04} for name, mean in (("teacher", 0.26), ("k=3", -0.1), ("untrained", 0))}
    row = {"verdict": "shows", "digits": 1, "values": values}
    assert cell(row) == "**shows**: 0.3 ± 0.0, -0.1 ± 0.0 (0.0 ± 0.0)"
    assert cell(row | {"values": {"teacher": values["teacher"]}}) == "**shows**: 0.3 ± 0.0 (—)"
