"""Nodes of a SLURM that die, once or again and again, daemons that die alone, and arrays of which half is cancelled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.test_slurm import (
    ON_SLURM,
    SCRIPT,
    SLOW,
    TRAINING,
    call,
    fingerprint,
    raptor,
    restart_soon,
    rows,
    slurm,
    status,
    step_of,
    submit,
    undisturbed,
    until,
    wait_for_the_end,
)

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.attack,
]  # beside test_slurm.py it would be a second SLURM


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """SLURM with four nodes; its folder."""
    with slurm("--nodes", "4") as folder:
        yield folder


@pytest.fixture(scope="module")
def whole(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the weights of a training that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("whole"))


def node_of(folder: Path) -> str:
    return str(status(folder)["slurm"]["node"])


def daemon_dies(cluster: Path, node: str) -> None:
    os.kill(int((cluster / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)


def node_dies(cluster: Path, folder: Path) -> str:
    """Kill the daemon of a job's node, and all processes of the job."""
    found, node = status(folder)["slurm"], node_of(folder)
    daemon_dies(cluster, node)
    pids = [int(status(folder)["pid"])]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(f"slurmstepd: [{found['raw_job']}.".encode()):
                pids.append(int(process.name))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return node


def declare_dead(node: str) -> None:
    """Spare the test the half minute after which SLURM counts a silent node as dead."""
    call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=died")


def repair(cluster: Path, node: str) -> None:
    call(str(SCRIPT), "node", str(cluster), node)


def begun(folder: Path, attempt: int) -> None:
    until(lambda: status(folder).get("attempt") == attempt)


def trained_to(folder: Path, step: int) -> None:
    until(lambda: step_of(folder) > step)


def test_a_node_that_dies(cluster: Path, whole: str, tmp_path: Path) -> None:
    ident = submit(tmp_path)
    folder = tmp_path / "runs" / "study" / "run"
    trained_to(folder, 20)
    node = node_dies(cluster, folder)
    declare_dead(node)
    restart_soon(ident)
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    found = status(folder)
    assert (found["attempt"], found["preempted"]) == (2, 1)
    assert node_of(folder) != node
    assert fingerprint(folder) == whole
    repair(cluster, node)


def outlive(cluster: Path, folder: Path, ident: str) -> str:
    """Kill the daemon of a job's node alone, and let SLURM start the job again elsewhere; returns the node."""
    trained_to(folder, 5)
    node = node_of(folder)
    daemon_dies(cluster, node)
    declare_dead(node)
    restart_soon(ident)
    ((row,), _) = rows(folder.parent)
    assert row["state"] == "running"
    until(lambda: "its former attempt runs on" in said(folder))
    return node


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.parents[1].glob(".launched/slurm/*.err"))


def state_in_slurm(ident: str) -> str:
    return call("squeue", "-h", "-r", "--states=all", "-j", ident, "-o", "%T").stdout.strip()


def test_a_job_that_outlives_the_daemon_of_its_node(
    cluster: Path, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_STEPS", "0.1")
    ident = submit(tmp_path, SLOW)
    folder = tmp_path / "runs" / "study" / "run"
    node = outlive(cluster, folder, ident)
    until(lambda: state_in_slurm(ident) == "COMPLETED")
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    assert status(folder)["attempt"] == 1  # the second found the result of the first
    assert fingerprint(folder) == whole
    repair(cluster, node)


def test_a_job_that_outlives_the_daemon_of_its_node_and_dies(
    cluster: Path, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_STEPS", "0.2")
    ident = submit(tmp_path, SLOW)
    folder = tmp_path / "runs" / "study" / "run"
    node = outlive(cluster, folder, ident)
    os.kill(int(status(folder)["pid"]), signal.SIGKILL)
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    assert status(folder)["attempt"] == 2
    assert fingerprint(folder) == whole
    repair(cluster, node)


def test_a_node_that_fails_again_and_again(cluster: Path, whole: str, tmp_path: Path) -> None:
    """The same node, which SLURM itself finds silent."""
    ident = submit(tmp_path, "+hydra.launcher.sbatch.nodelist=node3")
    folder = tmp_path / "runs" / "study" / "run"
    for attempt in range(1, 5):
        begun(folder, attempt)
        trained_to(folder, 20 * attempt)
        node_dies(cluster, folder)
        restart_soon(ident)
        repair(cluster, "node3")
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    found = status(folder)
    assert (found["attempt"], found["preempted"], node_of(folder)) == (5, 4, "node3")
    assert fingerprint(folder) == whole


def test_an_array_of_which_half_is_cancelled(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW_STEPS", "0.1")
    sweep = ["-m", *TRAINING, "seed=0,1,2,3,4,5", "name=${seed}", SLOW, *ON_SLURM]
    raptor("train", *sweep, "hydra.launcher.array_parallelism=2", cwd=tmp_path)
    study = tmp_path / "runs" / "study"
    trained_to(study / "0", 5)
    cancelled = {"0", "3", "5"}  # one that runs, two that wait
    idents = {name: status(study / name)["slurm"]["job"] for name in map(str, range(6))}
    call("scancel", *(idents[name] for name in cancelled))
    states = wait_for_the_end(study, 300)
    assert {name for name, state in states.items() if state == "done"} == set(idents) - cancelled
    assert states["0"] == "interrupted"
    assert {states["3"], states["5"]} == {"stale"}
    done = {name: fingerprint(study / name) for name in set(idents) - cancelled}
    again = raptor("train", *sweep, cwd=tmp_path)
    assert "3 finished, 0 under way, 3 to run" in again.stderr
    assert set(wait_for_the_end(study, 300).values()) == {"done"}
    assert done == {name: fingerprint(study / name) for name in done}
    assert all(status(study / name)["slurm"]["job"] == idents[name] for name in done)
