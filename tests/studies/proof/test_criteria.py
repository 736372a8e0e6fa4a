"""Conditions of success on numbers that meet them, miss them, or are not there."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from raptor.studies.proof.criteria import criteria
from raptor.studies.proof.page import tables


def readout(label: str, last: float, backbone: str | None = None, **more: Any) -> dict[str, Any]:
    accuracy = {probe: [0.1, 0.1 + (last - 0.1) / 2, last] for probe in ("ridge", "knn")}
    common = {"data": "photos", "k": None, "blocks": 1.0, "standard_error": 0.01, "images": {"train": 9, "val": 9}}
    return common | {
        "label": label,
        "backbone": backbone,
        "step": None,
        "accuracy": accuracy,
        "neighbours": {"compared": 3, "nearest": 0.5, "overlap": 0.5, "chance": 0.1},
        **more,
    }


def model(k: int, seed: int, kind: str = "surrogate", **more: Any) -> dict[str, Any]:
    values = {"cls": [0.5, 0.6], "patches": [0.7, 0.8]}
    floors = {"mean": {"cls": [0.0, 0.0], "patches": [0.0, 0.0]}, "affine": {"cls": [0.4, 0.1], "patches": [0.6, 0.5]}}
    return {
        "kind": kind,
        "label": f"k={k}",
        "k": k,
        "seed": seed,
        "boundaries": [1],
        "blocks": 0.2,
        "steps": 4,
        "batch": 8,
        "images": 32,
        "layers": dict.fromkeys(("r2_centered", "cosine", "eps"), values),
        "floors": floors,
        "history": {},
        "validated": 9,
        "seconds": 1.0,
    } | more


@pytest.fixture
def numbers() -> dict[str, Any]:
    models = {f"k{k}-{s}": model(k, s) for k in (2, 3) for s in (0, 1)}
    models |= {f"rival-{k}": model(k, 0, "rival", label="untied") for k in (2, 3)}
    readouts = {"teacher": readout("teacher", 0.5), "untrained": readout("untrained", 0.11)}
    readouts |= {f"r-k{k}-{s}": readout(f"k={k}", 0.49 + s / 500, f"k{k}-{s}") for k in (2, 3) for s in (0, 1)}
    readouts |= {f"r-rival-{k}": readout("untied", 0.2, f"rival-{k}") for k in (2, 3)}
    return {"study": "s", "readouts": readouts, "models": models}


def verdicts(numbers: dict[str, Any]) -> list[str]:
    return [criterion.verdict for criterion in criteria(numbers)]


def test_numbers_that_meet_every_condition(numbers: dict[str, Any]) -> None:
    assert verdicts(numbers) == ["met"] * 7
    by_text = {c.text: c.measured for c in criteria(numbers)}
    assert by_text["share of the teacher's accuracy at k=2 at least 96 %"] == "98.2 ± 0.3 % (2 seeds)"


def test_each_condition_can_be_missed(numbers: dict[str, Any]) -> None:
    bad = copy.deepcopy(numbers)
    bad["readouts"]["teacher"]["accuracy"]["ridge"][1] = 0.6
    assert verdicts(bad)[0] == "not met"
    bad = copy.deepcopy(numbers)
    for s in (0, 1):
        bad["readouts"][f"r-k2-{s}"]["accuracy"]["ridge"][-1] = 0.45
    assert verdicts(bad)[1:3] == ["not met", "met"]
    bad = copy.deepcopy(numbers)
    bad["readouts"]["r-rival-3"]["accuracy"]["ridge"][-1] = 0.49
    assert verdicts(bad)[3:5] == ["met", "not met"]
    bad = copy.deepcopy(numbers)
    bad["models"]["k2-1"]["floors"]["affine"]["cls"] = [0.4, 0.7]
    assert verdicts(bad)[5:] == ["not met", "met"]
    assert "cls: 3 of 4 layers, least -0.10" in criteria(bad)[5].measured


def test_what_was_not_measured_is_said_to_be(numbers: dict[str, Any]) -> None:
    only = {"study": "s", "models": {}, "readouts": {"teacher": numbers["readouts"]["teacher"]}}
    assert verdicts(only) == ["not measured"] * 7
    one_seed = copy.deepcopy(numbers)
    del one_seed["readouts"]["r-k2-1"]
    assert verdicts(one_seed)[3] == "not measured"


def test_tables_show_shares_of_teacher_and_gap(numbers: dict[str, Any]) -> None:
    shown = {table.name: table.frame for table in tables(numbers)}
    row = shown["accuracy"].set_index("network").loc["k=2"]
    assert row["ridge, share of the teacher's (%)"] == "98.2 ± 0.3"
    assert row["ridge, share of the gap (%)"] == "97.7 ± 0.4"
    assert shown["fidelity"].set_index("run").loc["k2-0", "least above the best floor, cls"] == "+0.100"
    assert list(shown["exits"].columns) == ["run", "network", "0", "1", "2"]
