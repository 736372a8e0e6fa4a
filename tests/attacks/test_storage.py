"""Disks that are full or read-only, folders of others, things in the way: one line, a true state, and on it goes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raptor.runs.options import check_folder_name
from raptor.utils.files import read_json
from raptor.utils.options import Invalid
from tests.attacks.children import command, ended, forked, give_up_privileges
from tests.attacks.test_deaths import SMALL

TRAIN = [argument for argument in SMALL if not argument.startswith("logger=")]


def train(folder: Path, *more: str, before: Callable[[], Any] = give_up_privileges) -> tuple[int, list[str]]:
    """Train in a child without privileges; returns its exit code and the lines of the error."""
    (folder / "output.txt").unlink(missing_ok=True)

    def run() -> None:
        os.chdir(folder)
        before()
        command("train", [*TRAIN, *more])

    code = ended(forked(run, folder / "output.txt"))
    text = (folder / "output.txt").read_text()
    assert "Traceback" not in text, text
    return code, [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own in ``runs``, of any size."""
    runs = tmp_path / "runs"
    runs.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", runs], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        return tmp_path

    yield mount
    subprocess.run(["umount", runs], capture_output=True, check=False)


def state(folder: Path) -> str:
    return str((read_json(folder / "runs" / "default" / "run" / "status.json") or {}).get("state", "none"))


@pytest.mark.parametrize(
    "size",
    [
        *(pytest.param(size, marks=pytest.mark.slow) for size in ("64k", "1m")),
        *(pytest.param(size, marks=pytest.mark.attack) for size in ("16k", "400k", "1500k")),
    ],
)
def test_a_full_disk(disk: Callable[[str], Path], size: str) -> None:
    folder = disk(f"size={size}")
    code, (line,) = train(folder)
    assert code == 1
    assert line.startswith("folder=runs/default/run: expected a folder that can be written (No space left on device: ")
    assert line.endswith("Fix: free some space, or set paths.runs to another disk; the same command continues.")
    assert state(folder) in (("none", "failed") if size == "16k" else ("failed",))
    subprocess.run(["mount", "-o", "remount,size=64m", folder / "runs"], check=True)
    assert train(folder) == (0, [])
    assert state(folder) == "finished"


def test_a_read_only_disk(disk: Callable[[str], Path]) -> None:
    folder = disk("size=64m,ro")
    code, (line,) = train(folder)
    assert code == 1
    assert "expected a folder that can be written (Read-only file system: runs/default)" in line
    assert line.endswith("Fix: make it writable, or set paths.runs to a folder of your own.")


@pytest.mark.parametrize(
    ("locked", "mode"),
    [("runs", 0), ("runs/default", 0o500), ("runs/default", 0), ("runs/default/run", 0o500), ("runs/default/run", 0)],
)
def test_a_folder_of_somebody_else(tmp_path: Path, locked: str, mode: int) -> None:
    (tmp_path / "runs/default/run").mkdir(parents=True)
    (tmp_path / locked).chmod(mode)
    code, (line,) = train(tmp_path, *([] if locked.endswith("run") else ["name=other"]))
    (tmp_path / locked).chmod(0o700)
    assert code == 1
    assert "expected a folder that can be written (Permission denied: runs/default" in line
    assert line.endswith("Fix: make it writable, or set paths.runs to a folder of your own.")


@pytest.mark.parametrize("way", ["runs", "runs/default", "runs/default/run"])
def test_a_file_in_the_way(tmp_path: Path, way: str) -> None:
    (tmp_path / way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / way).touch()
    code, (line,) = train(tmp_path)
    assert code == 1
    assert line.startswith("folder=runs/default/run: expected a folder that can be written (")
    assert line.endswith("Fix: move what is in the way, or choose another study or name.")


@pytest.mark.parametrize("key", ["name", "study"])
def test_names_that_are_no_single_folder(tmp_path: Path, key: str) -> None:
    for name in ("x" * 256, "a/b", "../../up", "/absolute", "", "..", ".hidden", "é" * 150, " x", "a\nb", "\x1b[31m"):
        with pytest.raises(Invalid, match=f"^{key}=.*: expected .* Fix: "):
            check_folder_name(key, name)
    code, (line,) = train(tmp_path, f"{key}=../../up")
    assert code == 1
    assert line.startswith(f"{key}=../../up: expected a name of one folder")
    assert not list(tmp_path.glob("runs/**/*"))
