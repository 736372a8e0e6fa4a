"""The numbers of docs/results/small_scale.md are those of the CSVs beside it."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from raptor.studies.small_scale.recompute import BLOCK, DATA, PAGE, main, make_table, number, p_text

DOCS = Path(__file__).parents[3] / "docs" / "results"


def test_the_page_equals_the_csvs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DOCS), "--check"]) == 0
    assert "up to date" in capsys.readouterr().out
    names = {match[2] for match in BLOCK.finditer((DOCS / PAGE).read_text(encoding="utf-8"))}
    assert names == set(DATA)


def test_a_number_that_differs_is_noticed_and_repaired(tmp_path: Path) -> None:
    for path in DOCS.glob("small_scale*"):
        shutil.copy(path, tmp_path)
    page = tmp_path / PAGE
    good = page.read_text(encoding="utf-8")
    page.write_text(good.replace("-0.95", "-0.96", 1), encoding="utf-8")
    assert main([str(tmp_path), "--check"]) == 1
    assert main([str(tmp_path)]) == 0
    assert page.read_text(encoding="utf-8") == good


def test_correlations_of_the_page_by_hand() -> None:
    fits = pd.read_csv(DOCS / "small_scale_fits.csv")
    own = fits[(fits["stage"] == "trained") & (fits["kind"] == "maxcut") & (fits["k"] == 3)]
    over = stats.spearmanr(own["adjacent"], own["r2_cls"])[0]
    x, y = (own[name] - own.groupby("drop_path")[name].transform("mean") for name in ("adjacent", "r2_cls"))
    within = stats.spearmanr(x, y)[0]
    (row,) = re.findall(r"\| 3 +\| adjacent +\| R2 cls +\| (\S+) +\| (\S+) ", make_table(DOCS, "digits", "within"))
    assert row == (f"{over:.2f}", f"{within:.2f}") == ("-0.95", "0.03")


def test_numbers_are_written_plainly() -> None:
    assert [number(0.12345), number(-0.0001), number(float("nan"))] == ["0.123", "0.000", "—"]
    assert [p_text(0.0002), p_text(0.004), p_text(0.25), p_text(float("nan"))] == ["< 0.001", "0.004", "0.25", "—"]
