"""The cost model takes the rates of an acceptance where there is one, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measured
from benchmarks.cost import parse
from benchmarks.measured import described, rates_of
from benchmarks.table1 import Job

VIT_B, VIT_L = "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2"


def acceptance(**facts: Any) -> dict[str, Any]:
    tflops = {VIT_B: {"stage 1": 200.0, "stage 2": 400.0}, VIT_L: {"stage 1": 300.0, "stage 2": 500.0}}
    return {
        "facts": {"kind": "cuda", "quick": False, "device": "a card"} | facts,
        "parts": {
            "steps": {"figures": {"tflops": tflops}},
            "probes": {"figures": {"tflops": {"imagenet": 250.0, "ade20k": 100.0, "nyuv2": 150.0}}},
            "sources": {"figures": {"jpegs_per_core": 80.0}},
        },
    }


@pytest.fixture(autouse=True)
def no_other_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(measured, "PLACES", (tmp_path / "acceptance.json",))
    return tmp_path / "acceptance.json"


def test_jobs_take_the_rate_of_their_stage(no_other_file: Path) -> None:
    assert parse([]).sustained("blocks") == 300e12  # assumed
    no_other_file.write_text(json.dumps(acceptance()))
    given = parse([])
    assert (given.sustained("blocks"), given.sustained("surrogates"), given.sustained("probes")) == (2e14, 4e14, 1e14)
    assert Job("blocks", 3600, 2e14, 64).hours(given) == 1.0
    assert Job("surrogates", 3600, 2e14, 64).hours(given) == 0.5
    assert given.decode == 80.0
    assert "blocks 200, surrogates 400, probes 100 TFLOP/s a GPU, measured" in described(given)
    assert parse(["teacher=dinov2_vitl14_reg"]).sustained("surrogates") == 5e14


def test_what_is_given_comes_before_what_is_measured(no_other_file: Path) -> None:
    no_other_file.write_text(json.dumps(acceptance()))
    given = parse(["tflops=50", "decode=10"])
    assert (given.sustained("probes"), given.decode) == (5e13, 10.0)
    assert "50 TFLOP/s a GPU, given, not measured" in described(given)


@pytest.mark.parametrize("facts", [{"quick": True}, {"kind": "cpu"}])
def test_figures_that_mean_nothing_are_not_taken(facts: dict[str, Any], no_other_file: Path) -> None:
    no_other_file.write_text(json.dumps(acceptance(**facts)))
    assert parse([]).rates == {}
    with pytest.raises(SystemExit, match=r"measured=.*: expected the measurements of a GPU, at full size\. Fix: "):
        parse([f"measured={no_other_file}"])


def test_a_file_that_is_named_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps(acceptance()))
    assert parse([f"measured={file}"]).rates == {"blocks": 200.0, "surrogates": 400.0, "probes": 100.0}
    with pytest.raises(SystemExit, match="measured="):
        parse([f"measured={tmp_path / 'missing.json'}"])


def test_parts_that_were_not_run_leave_the_assumption() -> None:
    found = acceptance()
    del found["parts"]["probes"]
    assert rates_of(found, "dinov2_vitb14_reg") == {"blocks": 200.0, "surrogates": 400.0}
