"""The numbers of docs/controls.md are those of the committed rows."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from raptor.studies.controls.page import short_table
from raptor.studies.controls.statistics import differences, findings, summary

DOCS = Path(__file__).parents[3] / "docs"
FOUND = json.loads((DOCS / "results" / "controls_digits.json").read_text())


@pytest.mark.parametrize("k", sorted({row["k"] for row in FOUND["rows"]}))
def test_the_table_of_the_page_is_that_of_the_results(k: int) -> None:
    table = short_table(FOUND, k).to_markdown()
    assert table in (DOCS / "controls.md").read_text()


def test_the_results_follow_from_the_rows() -> None:
    rows = pd.read_csv(DOCS / "results" / "controls_digits.csv")
    for computed, kept in zip(summary(rows).to_dict("records"), FOUND["summary"], strict=True):
        assert computed["method"] == kept["method"]
        known = {key: value for key, value in kept.items() if isinstance(value, int | float)}
        assert {key: computed[key] for key in known} == pytest.approx(known)
    found = findings(differences(rows)).to_dict("records")
    assert found == FOUND["findings"]
