"""Sweeps as processes on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.files import read_json
from tests.conftest import start

SHORT = ["trainer.max_steps=4", "trainer.val_check_interval=4", "trainer.enable_progress_bar=false", "study=study"]
LOCAL = ["hydra/launcher=local", "hydra.launcher.jobs=2"]


def run(command: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    process = start(command, *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def states(cwd: Path) -> tuple[dict[str, dict[str, Any]], int]:
    found = subprocess.run(
        [sys.executable, "-m", "raptor.status", "runs/study", "--json"], cwd=cwd, capture_output=True, check=False
    )
    return {row["job"]: row for row in json.loads(found.stdout)}, found.returncode


@pytest.mark.slow
def test_a_failed_job_leaves_its_siblings_alone_and_is_the_only_one_to_run_again(tmp_path: Path) -> None:
    phases = json.dumps({"num_layers": 12, "solver": "exact", "boundaries": {"2": [7]}})
    (tmp_path / "good.json").write_text(phases)
    sweep = ["-m", *SHORT, *LOCAL, "surrogate.k=2", "surrogate.phases_file=good.json,late.json"]
    code, said = run("train", *sweep, cwd=tmp_path)
    assert code == 1
    assert "1 of 2 jobs failed" in said
    assert "late.json" in said
    found, code = states(tmp_path)
    assert code == 1
    (bad,) = (job for job, row in found.items() if row["state"] == "failed")
    assert "late.json" in found[bad]["why"]
    assert "Traceback" in (tmp_path / "runs/study" / bad / "output.txt").read_text()
    (good,) = found.keys() - {bad}
    package = (read_json(tmp_path / "runs/study" / good / "provenance.json") or {})["attempts"][0]["package"]
    assert Path(package).is_relative_to(tmp_path / "runs/.launched/local/code")  # a copy of the code ran
    (tmp_path / "late.json").write_text(phases)
    code, said = run("train", *sweep, cwd=tmp_path)
    assert code == 0
    assert "1 finished" in said
    found, code = states(tmp_path)
    assert code == 0
    assert (found[good]["status"]["attempt"], found[bad]["status"]["attempt"]) == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_takes_its_jobs_with_it_and_goes_on(tmp_path: Path, signum: int) -> None:
    arguments = [
        *SHORT,
        "trainer.max_steps=2000",
        "callbacks.checkpoint.every_n_steps=10",
        "trainer.val_check_interval=500",
    ]
    process = start("train", "-m", *arguments, *LOCAL, "seed=0,1,2", "name=s${seed}", cwd=tmp_path)
    study = tmp_path / "runs" / "study"
    end = time.monotonic() + 120
    while not all((study / f"s{i}/checkpoints/last.ckpt").is_file() for i in (0, 1)):
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signum)
    assert process.wait(timeout=60) != 0
    found, code = states(tmp_path)
    assert code == 1
    assert {row["state"] for row in found.values()} == {"interrupted"}
    for job in ("s0", "s1"):
        assert found[job]["status"]["state"] == "interrupted"
    log = (study / "s0" / "log.txt").read_text()
    assert "continued" not in log


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    for wrong, message in {
        "hydra.launcher.jobs=0": "hydra.launcher.jobs=0: expected integer >= 1 or null. Fix: ",
        "+hydra.launcher.job=3": "hydra.launcher.job=3: expected a key that exists. Fix: write hydra.launcher.jobs",
        "surrogate.kk=2": "surrogate.kk=2: expected a key that exists. Fix: write surrogate.k",
        "name=same": "name=same: expected a run folder of its own for each job of train (several have runs",
        "task.blocks=runs/none": "task.blocks=runs/none: expected a finished run (it is: does not exist). Fix: ",
    }.items():
        code, said = run("train", "-m", *SHORT, *LOCAL, "seed=0,1", wrong, cwd=tmp_path)
        assert code == 1
        assert message in " ".join(said.split())
        assert not list((tmp_path / "runs").glob("[!.]*"))  # but for Hydra's own .sweep


def test_without_slurm_its_launcher_says_so(tmp_path: Path) -> None:
    import os

    environment = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    found = subprocess.run(
        [sys.executable, "-m", "raptor.train", "-m", *SHORT, "hydra/launcher=slurm", "name=x"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert found.returncode == 1
    assert "hydra/launcher=slurm: expected sbatch and srun on this machine. Fix: " in found.stderr
    assert (read_json(tmp_path / "runs/study/x/status.json") or {})["state"] == "failed"
