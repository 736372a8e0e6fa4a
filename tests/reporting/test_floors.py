"""R2 centred is the headline where runs have it, with the floors beside; older runs show it as missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raptor.reporting.layers import FLOORS, by_seed, measure_of, r2_by_layer
from raptor.reporting.overview import overview, rows
from raptor.reporting.study import write_report
from raptor.runs.study import Study
from tests.reporting.runs import put

LAYERS = 3


def surrogate(root: Path, name: str, k: int, seed: int, centred: float | None) -> None:
    """Write a run; without ``centred`` as runs were before floors were measured."""
    metrics: dict[str, Any] = {"val/top1": 0.9, "val/r2_cls": 0.95}
    curves: dict[str, Any] = {"r2": {"cls": [0.95] * LAYERS}}
    more: dict[str, Any] = {}
    if centred is not None:
        metrics["val/r2_centered_cls"] = centred
        curves["r2_centered"] = {"cls": [centred] * LAYERS}
        floors = dict(zip(FLOORS, (0.0, -3.0, 0.1, 0.3), strict=True))
        more = {"floors": {floor: {"cls": [value] * LAYERS} for floor, value in floors.items()}}
        more["above_floor"] = {"cls": centred - 0.3}
    model = {"k": k, "boundaries": [1] * (k - 1)}
    put(root, name, "finetune", model, metrics, seed, {"surrogate.k": k}, layers={"0-3": curves}, **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs" / "study"
    for seed, centred in enumerate((0.4, 0.6)):
        surrogate(root, f"new{seed}", 2, seed, centred)
    surrogate(root, "old", 3, 0, None)
    return root


def test_the_table_has_floors_and_marks_runs_without_them(root: Path) -> None:
    table = rows(Study(root)).set_index("backbone")
    assert table.loc["k=2", "r2_centered_cls_mean"] == pytest.approx(0.5)
    assert table.loc["k=2", "above_floor_cls_mean"] == pytest.approx(0.2)
    assert (table.loc["k=3", "r2_centered_cls_n"], table.loc["k=3", "r2_centered_cls_expected"]) == (0, 1)
    shown = overview(Study(root), rows(Study(root))).frame.set_index("backbone")
    assert shown["R2 centred cls"]["k=3"] == "missing"
    assert shown["above best floor cls"]["k=3"] == "missing"
    assert shown.loc["k=3", "R2 scalar mean cls"] == "0.950"
    columns = list(shown.columns)
    assert columns.index("R2 centred cls") < columns.index("R2 scalar mean cls")


def test_the_figure_draws_each_floor_at_its_height(root: Path) -> None:
    groups = Study(root).surrogates()
    assert measure_of(groups) == "r2_centered"
    seeds = by_seed(groups[0], "r2_centered", "cls")
    assert seeds is not None
    assert np.allclose(seeds, [[0.4] * LAYERS, [0.6] * LAYERS])
    figure = r2_by_layer(groups)
    drawn = [np.ravel(line.get_ydata()) for line in figure.axes[0].lines]
    heights = {float(curve[0]) for curve in drawn if len(curve) == LAYERS}
    assert {0.0, -3.0, 0.1, 0.3, 0.5} <= {round(height, 6) for height in heights}
    legend = figure.axes[1].get_legend()
    assert legend is not None
    labels = {text.get_text() for text in legend.get_texts()}
    assert {f"floor: {name}" for name in FLOORS.values()} <= labels
    assert "missing" in {text.get_text() for text in figure.axes[1].texts}


def test_a_report_of_both_kinds_of_runs(root: Path, tmp_path: Path) -> None:
    write_report(Study(root), tmp_path / "out", "Floors")
    assert "0.500 ± 0.141" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
