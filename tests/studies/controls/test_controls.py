"""Statistics of the study of controls on planted numbers, and its page from run folders that hold nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raptor.errors import ConfigError
from raptor.reporting.statistics import MeanCI
from raptor.runs.study import Study
from raptor.studies.controls import statistics as statistic
from raptor.studies.controls.page import write_controls
from raptor.studies.controls.rows import MEASURES, floor_means, rows
from tests.reporting.runs import put

PARAMETERS = {"tied": 100, "untied": 101, "pruned": 95, "per_layer": 600}


def curves(value: float) -> dict[str, dict[str, list[float]]]:
    by = {"cls": [value - 0.1, value + 0.1], "patches": [value - 0.2, value]}
    return {"r2_centered": by, "eps": {kind: [0.5, 0.25] for kind in by}}


FLOORS = {"mean": curves(0.0), "affine": curves(0.3)}


def fitted(root: Path, method: str, seed: int, value: float, **more: object) -> str:
    """Write the run of a method with k=2; returns its name."""
    name = f"{method}-k2-s{seed}"
    model: dict[str, Any] = {"k": 2, "boundaries": [1], "block_parameters": PARAMETERS[method], "block_flops": 10**6}
    model |= {"label": "tied"} if method == "tied" else {"rival": method, "images": 40}
    found = {"layers": {"0-2": curves(value)}, "floor_measures": {"0-2": FLOORS}, "steps": 5} | more
    put(root, name, "finetune", model, {"val/top1": value}, seed, {"data.batch_size": 8, "surrogate": method}, **found)
    return name


def probed(root: Path, folder: str | None, label: str, seed: int, value: float) -> None:
    """Write the run of a linear probe."""
    model = {"backbone": {"folder": folder and str(root / folder), "label": label}}
    put(root, f"probe-{folder or label}-{seed}", "linear_probe", model, {"val/top1": value}, seed, {"label": label})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    root = tmp_path / "runs" / "controls"
    values = {"tied": [0.70, 0.71, 0.72], "untied": [0.50, 0.52, 0.51], "pruned": [0.7, 0.73, 0.69]}
    for method, of_seeds in (values | {"per_layer": [0.9, 0.91, 0.92]}).items():
        for seed, value in enumerate(of_seeds):
            probed(root, fitted(root, method, seed, value), f"k=2, {method}", seed, value)
    for seed in (0, 1, 2):
        probed(root, None, "teacher", seed, 0.95)
    return Study(root)


def test_rows_have_costs_measures_and_the_probe_of_their_run(study: Study) -> None:
    frame = rows(study)
    assert list(frame["method"].unique()) == ["tied", "untied", "pruned", "per_layer"]
    row = frame[(frame["method"] == "untied") & (frame["seed"] == 1)].to_dict("records")[0]
    assert (row["parameters"], row["images"], row["probe"], row["head"]) == (101, 5 * 8 + 40, 0.52, 0.52)
    assert row["r2_cls"] == pytest.approx(0.52)
    assert row["r2_cls_last"] == pytest.approx(0.62)
    assert row["above_patches"] == pytest.approx(0.42 - 0.2)
    assert floor_means(study, 2)["affine"] == {"cls": pytest.approx(0.3), "patches": pytest.approx(0.2)}
    assert frame.notna().all().all() and set(MEASURES) <= set(frame)


def test_verdicts_follow_the_interval_of_paired_differences(study: Study) -> None:
    compared = statistic.differences(rows(study))
    by = {(row["method"], row["measure"]): row for row in compared.to_dict("records")}
    expected = MeanCI.of([0.2, 0.19, 0.21])
    assert by["untied", "r2_cls"]["mean"] == pytest.approx(expected.mean)
    assert by["untied", "r2_cls"]["ci95"] == pytest.approx(expected.ci95)
    verdicts = {key: row["verdict"] for key, row in by.items()}
    assert verdicts["untied", "probe"] == "wins"
    assert verdicts["pruned", "probe"] == "open"
    assert verdicts["per_layer", "probe"] == "loses"
    found = next(row for row in statistic.findings(compared).to_dict("records") if row["measure"] == "r2_patches")
    assert (found["wins"], found["open"], found["loses"]) == (["untied"], ["pruned"], [])  # the ceiling is apart
    assert statistic.verdict(MeanCI.of([0.1])) == "open"
    assert statistic.verdict(MeanCI.of([0.1, 0.1])) == "wins"


def test_parameters_are_compared_with_the_tied_blocks(study: Study) -> None:
    assert list(statistic.parameter_range(rows(study))) == pytest.approx([0.95, 1.01])


def test_the_page_has_all_forms(study: Study, tmp_path: Path) -> None:
    shown = write_controls(study, tmp_path, "Controls")
    found = json.loads((tmp_path / "controls.json").read_text())
    assert len(found["rows"]) == 12
    assert found["references"] == {"teacher": [0.95] * 3}
    names = {"findings.md", "controls_k2.md", "controls_k2.tex", "controls.csv", "controls_document.tex", "report.html"}
    assert names <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "figures" / "controls_k2.png").is_file()
    for text in ("tied blocks, max-cut phases", "floor: affine map of layer 0", "0.710 ± 0.025", "teacher"):
        assert text in shown
    assert "\\input{controls_k2}" in (tmp_path / "controls_document.tex").read_text()


def test_a_study_without_floors_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "controls"
    fitted(root, "tied", 0, 0.5, floor_measures=None)
    with pytest.raises(ConfigError, match="no finished run with floors"):
        rows(Study(root))
