"""Each task and long command, ended by signals, kills and time limits: the next call ends as if nothing had been."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.locks import is_held
from tests import warm
from tests.attacks.children import Count, command, ended, forked
from tests.trees import lay_out

TRAIN = [
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.checkpoint.every_n_steps=1",
    "data.batch_size=8",
    "name=run",
]
DENSE = [*TRAIN[3:], "teacher=mini_vit", "teacher.options.depth=2", "paths.data=trees", "task.learning_rates=[1e-2]"]
DYNAMICS = ["images=8", "shown=2", "ranks=false", "perturbation.images=0", "jacobian.images=0"]
STUDY = """# @package _global_
study: tiny
stages:
  - phases study=tiny name=phases k=[2] images=64 draws=9 resamples=0
  - train study=tiny name=k2 surrogate.k=2 surrogate.phases_file=runs/tiny/phases/phases.json
"""
SHORT = "train=['trainer.max_steps=2','trainer.val_check_interval=2','trainer.limit_val_batches=1']"


@dataclass(frozen=True)
class Call:
    """A command, and the commands before it whose results it needs."""

    command: str
    arguments: list[str]
    before: list[tuple[str, list[str]]] = field(default_factory=list)


TASKS = {
    "finetune": Call("train", [*TRAIN, "surrogate.boundaries=[5]", "callbacks.snapshots.steps=[3]"]),
    "distill": Call("train", [*TRAIN, "task=distill", "surrogate.phases=[[7,10],[10,12]]", "task.input_noise=0.1"]),
    "classifier": Call("train", [*TRAIN, "task=classifier", "teacher.weights=null"]),
    "partitions": Call("train", [*TRAIN, "task=partitions", "task.ks=[2]", "task.swaps=1", "surrogate.images=64"]),
    "linear": Call("train", [*TRAIN, "task=linear_probe", "task.cache=false", "task.learning_rates=[1e-2,1e-3]"]),
    "segmentation": Call("train", ["protocol=mini_ade20k", *DENSE, "trainer.max_steps=4"]),
    "depth": Call("train", ["protocol=mini_nyuv2", *DENSE, "trainer.max_steps=4"]),
}
COMMANDS = {
    "extract": Call("extract", ["layers=[3,4]", "shard_size=200", "data.batch_size=50", "name=run"]),
    "phases": Call("phases", ["images=64", "k=[2,3]", "draws=9", "resamples=5", "name=run"]),
    "dynamics": Call("dynamics", [*DYNAMICS, "name=run"]),
    "report": Call("report", ["study=default"], [("train", TASKS["finetune"].arguments)]),
    "reproduce": Call(
        "reproduce", ["--config-dir", "mine", "experiment=tiny", "hydra/launcher=local", "hydra.launcher.jobs=1", SHORT]
    ),
}
CALLS = {**TASKS, **COMMANDS}
LOOKS = (".png", ".pdf", ".svg", ".html")  # are compared by their names
OF_ATTEMPTS = {"status.json", "provenance.json", "code.diff", "log.txt", "output.txt", "last.ckpt", "metrics.jsonl"}


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Import here what all children need."""
    for name in warm.PRELOAD:
        importlib.import_module(name)


def lay(folder: Path, call: Call) -> Path:
    """Lay out all that a command reads."""
    folder.mkdir()
    lay_out(folder / "trees")
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "tiny.yaml").write_text(STUDY)
    for name, arguments in call.before:
        assert run(folder, Call(name, arguments))[0] == 0, said(folder)
    return folder


def run(folder: Path, call: Call, last: int = 0, signum: int = signal.SIGKILL, times: int = 1) -> tuple[int, int]:
    """Run a command in a child that gets a signal at one of its file operations; returns exit code and their number."""
    reader, writer = os.pipe()

    def attempt() -> None:
        os.chdir(folder)
        count = Count(folder, last, signum, times)
        try:
            command(call.command, call.arguments)
        finally:
            os.write(writer, str(count.number).encode())

    child = forked(attempt, folder.with_suffix(".txt"))
    os.close(writer)
    code = ended(child)
    with os.fdopen(reader) as file:  # grandchildren may still hold it
        os.set_blocking(reader, False)
        number = file.read()
    return code, int(number or 0)


def outcome(folder: Path) -> dict[str, Any]:
    """What a command has made: the digest of each file, without what says how many attempts it took."""
    found: dict[str, Any] = {}
    for path in sorted(p for root in ("runs", "stores") for p in (folder / root).rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.name in OF_ATTEMPTS or path.name.startswith(".lock") or ".launched" in path.parts:
            continue
        if path.suffix in LOOKS:
            found[name] = path.stat().st_size > 0
        elif path.name == "result.json":
            values = json.loads(path.read_text())
            found[name] = {key: v for key, v in values.items() if key not in ("seconds", "attempts", "versions")}
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class Whole:
    """What undisturbed commands end in, and how many file operations they take."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, tuple[dict[str, Any], int]] = {}

    def lay(self, name: str, folder: Path) -> Path:
        """Copy all that a command reads, which is made once."""
        made = self.root / f"{name}-before"
        return Path(shutil.copytree(made if made.is_dir() else lay(made, CALLS[name]), folder, symlinks=True))

    def __getitem__(self, name: str) -> tuple[dict[str, Any], int]:
        if name not in self.known:
            folder = self.lay(name, self.root / name)
            code, number = run(folder, CALLS[name])
            assert code == 0, said(folder)
            self.known[name] = outcome(folder), number
        return self.known[name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def said(folder: Path) -> str:
    return folder.with_suffix(".txt").read_text()


def go_on(folder: Path, name: str, expected: dict[str, Any], when: str) -> None:
    while any(is_held(lock) for lock in folder.glob("runs/*/*/.lock")):  # jobs outlive a launcher that was killed
        time.sleep(0.1)
    code, _ = run(folder, CALLS[name])
    assert code == 0, f"{when}: {said(folder)}"
    assert outcome(folder) == expected, when
    shutil.rmtree(folder)


def end_and_go_on(folder: Path, name: str, whole: Whole, signum: int, rng: random.Random) -> None:
    expected, number = whole[name]
    last = rng.randint(1, number)
    whole.lay(name, folder)
    code, _ = run(folder, CALLS[name], last, signum)
    when = f"{name}, {signal.Signals(signum).name} at operation {last} of {number}"
    assert code in (-signum, 128 + signum, *([0] if signum != signal.SIGKILL else [])), f"{when}: {code} {said(folder)}"
    assert "Traceback" not in said(folder), f"{when}: {said(folder)}"
    states = {json.loads(path.read_text())["state"] for path in folder.glob("runs/*/*/status.json")}
    assert "failed" not in states, when
    go_on(folder, name, expected, when)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segmentation", "depth", "phases", "report"])  # others: tests/test_resume.py
def test_some_kills(name: str, whole: Whole, tmp_path: Path) -> None:
    end_and_go_on(tmp_path / "run", name, whole, signal.SIGKILL, random.Random(name))


@pytest.mark.attack
@pytest.mark.parametrize("name", CALLS)
def test_two_hundred_kills(name: str, whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(name)
    for number in range(17):
        end_and_go_on(tmp_path / str(number), name, whole, signal.SIGKILL, rng)


@pytest.mark.attack
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", CALLS)
def test_signals(name: str, signum: int, whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(f"{name}{signum}")
    for number in range(3):
        end_and_go_on(tmp_path / str(number), name, whole, signum, rng)


@pytest.mark.attack
@pytest.mark.parametrize("name", TASKS)
def test_time_limits(name: str, whole: Whole, tmp_path: Path) -> None:
    folder = whole.lay(name, tmp_path / "run")
    limited = Call("train", [*CALLS[name].arguments, "trainer.max_time=00:00:00:00"])
    code, _ = run(folder, limited)
    assert code == 1, said(folder)
    assert "run the same command with a longer trainer.max_time, or null: it continues" in said(folder)
    assert (folder / "runs/default/run/checkpoints/last.ckpt").is_file()
    go_on(folder, name, whole[name][0], f"{name} after a time limit")


@pytest.mark.attack
@pytest.mark.parametrize("name", CALLS)
def test_a_second_interrupt_stops_within_two_seconds(name: str, whole: Whole, tmp_path: Path) -> None:
    expected, number = whole[name]
    folder = whole.lay(name, tmp_path / "run")
    begin = time.monotonic()
    assert run(folder, CALLS[name])[0] == 0
    usual = time.monotonic() - begin
    shutil.rmtree(folder)
    whole.lay(name, folder)
    begin = time.monotonic()
    code, _ = run(folder, CALLS[name], number // 2, signal.SIGINT, times=2)
    assert code in (130, -signal.SIGINT), said(folder)
    assert time.monotonic() - begin < usual + 2
    go_on(folder, name, expected, f"{name} after two interrupts")


@pytest.mark.attack
@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_moves_goes_on(name: str, whole: Whole, tmp_path: Path) -> None:
    """The folder of a killed run is copied to another place, as to another machine, and continued there."""
    expected, number = whole[name]
    folder = whole.lay(name, tmp_path / "here")
    assert run(folder, CALLS[name], 2 * number // 3)[0] == -signal.SIGKILL
    there = tmp_path / "a" / "place elsewhere"
    shutil.copytree(folder, there)
    shutil.rmtree(folder)
    go_on(there, name, expected, f"{name} elsewhere")
