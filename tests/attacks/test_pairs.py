"""Two configurations under one name at the same moment: one is refused, and nothing of them is mixed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.files import read_json
from tests.attacks.children import command, ended, forked
from tests.attacks.test_deaths import SMALL
from tests.conftest import start

TRAIN = [argument for argument in SMALL if not argument.startswith("logger=")]


def in_child(folder: Path, name: str, arguments: list[str]) -> int:
    def run() -> None:
        os.chdir(folder)
        command(name, arguments)

    return forked(run, folder / f"output-{'-'.join(arguments[-1:])}.txt")


def check(folder: Path, codes: list[int], key: str) -> Any:
    """Exactly one ended well, and the folder is all its own; returns the value of the key that won."""
    said = "\n".join(path.read_text() for path in folder.glob("output*"))
    assert sorted(codes) == [0, 1], said
    assert "Traceback" not in said
    assert "in use" in said or "expected a run of this configuration" in said
    run = folder / "runs" / "default" / "run"
    recorded = (read_json(run / "identity.json") or {})["values"]
    assert (read_json(run / "status.json") or {})["state"] == "finished"
    return recorded[key]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Fingerprint of an undisturbed training by its seed."""
    found = {}
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        assert ended(in_child(folder, "train", [*TRAIN, f"seed={seed}"])) == 0
        found[seed] = (read_json(folder / "runs/default/run/result.json") or {})["weights_sha256"]
    assert found[0] != found[1]
    return found


def train_two(folder: Path, weights: dict[int, str]) -> None:
    children = [in_child(folder, "train", [*TRAIN, f"seed={seed}"]) for seed in (0, 1)]
    seed = check(folder, [ended(child) for child in children], "seed")
    result = read_json(folder / "runs/default/run/result.json") or {}
    assert (result["seed"], result["weights_sha256"]) == (seed, weights[seed])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_two_trainings(number: int, weights: dict[int, str], tmp_path: Path) -> None:
    train_two(tmp_path, weights)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_two_calls_of_phases(number: int, tmp_path: Path) -> None:
    arguments = ["images=100", "name=run"]
    children = [in_child(tmp_path, "phases", [*arguments, f"k={k}"]) for k in (2, 3)]
    k = check(tmp_path, [ended(child) for child in children], "k")
    run = tmp_path / "runs" / "default" / "run"
    phases = json.loads((run / "phases.json").read_text())
    assert list(phases["boundaries"]) == [str(k)]
    assert (read_json(run / "result.json") or {})["phases"] == phases


@pytest.mark.attack
@pytest.mark.parametrize("number", range(10))
def test_ten_forked_pairs(number: int, weights: dict[int, str], tmp_path: Path) -> None:
    train_two(tmp_path, weights)


@pytest.mark.attack
@pytest.mark.parametrize("number", range(10))
def test_ten_cold_pairs(number: int, weights: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPTOR_COLD", "1")
    processes = []
    for seed in (0, 1):
        with (tmp_path / f"output{seed}.txt").open("w") as output:
            processes.append(start("train", *TRAIN, f"seed={seed}", cwd=tmp_path, stdout=output, stderr=output))
    seed = check(tmp_path, [process.wait(timeout=600) for process in processes], "seed")
    assert (read_json(tmp_path / "runs/default/run/result.json") or {})["weights_sha256"] == weights[seed]
