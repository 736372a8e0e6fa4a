"""The acceptance of a GPU: parts run in small on the CPU, failures are told and end with 1, no GPU with 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.acceptance.__main__ import missing_gpu
from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.page import failures, missed, page
from benchmarks.acceptance.runner import identity, machine, passed_before, run_part
from benchmarks.measure import Options
from raptor.utils.files import write_json

ROOT = Path(__file__).parents[2]
CPU = Options(torch.device("cpu"), quick=True)
QUICKEST = ["ceilings", "waiting", "graphs", "losses", "equality"]


def acceptance(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.acceptance", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_parts_run_in_small_on_the_cpu_and_are_not_run_again(tmp_path: Path) -> None:
    done = acceptance("--device", "cpu", "--quick", "--to", str(tmp_path), *QUICKEST)
    logs = "".join(path.read_text()[-2000:] for path in (tmp_path / "parts").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    found = json.loads((tmp_path / "acceptance.json").read_text())
    assert list(found["parts"]) == QUICKEST
    assert all(part["state"] == "passed" and part["checks"] for part in found["parts"].values())
    shown = (tmp_path / "acceptance.md").read_text()
    assert "Nothing failed" in shown and "No figure on this page means a thing" in shown
    graphs = {check["what"]: check["found"] for check in found["parts"]["graphs"]["checks"]}
    assert graphs["12 depths of 3 blocks: graphs"] == "2"  # by inductor: one where tokens need gradients, one where not
    assert graphs["six other blocks and phases: graphs"] == graphs["further steps: graphs"] == "0"
    assert found["parts"]["graphs"]["figures"]["graph breaks"] == 0
    assert all(run_part(name, CPU, tmp_path, machine(CPU), minutes=1.0).get("skipped") for name in QUICKEST)


def test_without_a_gpu_there_is_one_message_and_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    done = acceptance()
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith("error: device=cuda: expected an NVIDIA GPU that torch can use (torch ")
    assert "Fix: run this on a machine with one" in line
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert missing_gpu() is None


def result(state: str = "passed", **changes: Any) -> dict[str, Any]:
    return {"state": state, "error": None, "seconds": 1.0, "checks": [], "rows": [], "figures": {}} | changes


def test_failures_are_told_apart_from_goals() -> None:
    outcome = Outcome()
    outcome.check("bits", passed=False, found="different", wanted="equal")
    outcome.check("layers", passed=True, found=0.0, wanted="0")
    outcome.goal("gain", 3.0, 8.0, Options(torch.device("cuda")))
    outcome.goal("gain in small", 3.0, 8.0, CPU)
    checks = [vars(check) for check in outcome.checks]
    assert len(checks) == 3
    parts = {"determinism": result("failed", checks=checks), "memory": result("failed", error="CUDA: no\nmore")}
    assert failures(parts) == ["determinism: bits: different, expected equal", "memory: CUDA: no"]
    assert missed(parts) == ["goal not reached: determinism: gain: 3.00, expected at least 8"]
    shown = page({"facts": machine(CPU), "parts": parts})
    assert "2 failed:" in shown and "| bits | different | equal | **failed** |" in shown
    assert "| gain | 3.00 | at least 8 | goal not reached |" in shown
    assert "Not run: ceilings, tests" in shown


def test_a_part_counts_with_the_same_code_on_the_same_device_alone(tmp_path: Path) -> None:
    about = machine(CPU)
    file = tmp_path / "parts" / "tests.json"
    file.parent.mkdir()
    assert passed_before("tests", tmp_path, about) is None
    write_json(file, result(identity=identity(about)))
    assert passed_before("tests", tmp_path, about) is not None
    for change in ({"code": "other"}, {"device": "another card"}, {"quick": False}, {"driver": "1"}):
        assert passed_before("tests", tmp_path, about | change) is None
    write_json(file, result("failed", identity=identity(about)))
    assert passed_before("tests", tmp_path, about) is None


def test_an_unknown_part_is_refused() -> None:
    done = acceptance("speed")
    assert done.returncode == 2 and "speed: unknown; choose among ceilings, tests" in done.stderr
