"""SIGKILL at the file operations of a small training: the next call ends in the same weights and curves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.files import read_json
from tests.attacks.children import Count, command, ended, forked

SMALL = [
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.checkpoint.every_n_steps=1",
    "callbacks.snapshots.steps=[3]",
    "surrogate.boundaries=[5]",
    "data.batch_size=8",
    "logger=wandb",
    "name=run",
]


def run(folder: Path, last: int) -> tuple[int, int]:
    """Train in a child that dies at one of its file operations; returns its exit code and their number."""
    reader, writer = os.pipe()

    def train() -> None:
        os.chdir(folder)
        count = Count(folder / "runs", last)
        try:
            command("train", SMALL)
        finally:
            os.write(writer, str(count.number).encode())

    child = forked(train, folder / "output.txt")
    os.close(writer)
    with os.fdopen(reader) as file:
        number = file.read()
    return ended(child), int(number or 0)


def outcome(folder: Path) -> dict[str, Any]:
    run_folder = folder / "runs" / "default" / "run"
    result = read_json(run_folder / "result.json") or {}
    table = (run_folder / "metrics" / "metrics.csv").read_text()
    snapshot = (run_folder / "snapshots" / "3" / "model.safetensors").read_bytes()
    return {key: result[key] for key in ("weights_sha256", "metrics", "history")} | {"csv": table, "snapshot": snapshot}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What an undisturbed training ends in, and how many file operations it takes."""
    folder = tmp_path_factory.mktemp("whole")
    code, number = run(folder, 0)
    assert code == 0, (folder / "output.txt").read_text()
    return outcome(folder), number


def die_and_go_on(folder: Path, last: int, expected: dict[str, Any]) -> None:
    folder.mkdir()
    assert run(folder, last)[0] == -9
    code, _ = run(folder, 0)
    assert code == 0, f"after operation {last}: {(folder / 'output.txt').read_text()}"
    assert outcome(folder) == expected, f"after operation {last}"
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_deaths_at_some_file_operations(part: int, whole: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    expected, number = whole
    assert number > 100
    die_and_go_on(tmp_path / "run", number * (2 * part + 1) // 12, expected)


@pytest.mark.attack
def test_deaths_at_every_file_operation(whole: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    expected, number = whole
    for last in range(1, number + 1):
        die_and_go_on(tmp_path / str(last), last, expected)
