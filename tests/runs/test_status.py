"""States of jobs by status file, locks and SLURM's queue."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raptor.errors import ConfigError
from raptor.runs.status import LOCK, SILENT, rows_of, state_of
from raptor.status import exit_code, table
from raptor.utils.files import write_json
from raptor.utils.locks import Lock
from tests.privileges import as_nobody, shared_folder

HERE = platform.node()
SLURM = {"slurm": {"job": "7_1", "restarts": 0}}
NOBODY = 2**22 + 1  # above any process id


@pytest.mark.parametrize(
    ("status", "queue", "expected"),
    [
        ({"state": "finished", **SLURM}, {}, "done"),
        ({"state": "failed", "error": "E: no", **SLURM}, {"7_1": "FAILED"}, "failed"),
        ({"state": "failed", "error": "E: no", **SLURM}, None, "failed"),
        ({"state": "failed", "error": "on its way out", **SLURM}, {"7_1": "PENDING"}, "waiting"),  # requeued
        ({"state": "queued", **SLURM}, {"7_1": "PENDING"}, "waiting"),
        ({"state": "queued", **SLURM}, {"7_1": "RUNNING"}, "waiting"),  # it imports still
        ({"state": "queued", **SLURM}, {"7_2": "PENDING"}, "stale"),
        ({"state": "queued", **SLURM}, {"7_1": "CANCELLED"}, "stale"),
        ({"state": "running", **SLURM}, {"7_1": "RUNNING"}, "running"),
        ({"state": "running", **SLURM}, {"7_1": "PENDING"}, "waiting"),  # its node died
        ({"state": "running", **SLURM}, {"7_1": "FAILED"}, "stale"),
        ({"state": "running", **SLURM}, {}, "stale"),
        ({"state": "running", **SLURM}, None, "running"),
        ({"state": "preempted", **SLURM}, {"7_1": "PENDING"}, "waiting"),
        ({"state": "interrupted", **SLURM}, {"7_1": "PENDING"}, "waiting"),  # requeued by somebody
        ({"state": "interrupted", **SLURM}, {"7_1": "CANCELLED"}, "interrupted"),
        ({"state": "interrupted", "host": HERE, "pid": os.getpid()}, None, "interrupted"),
        ({}, None, "stale"),
    ],
)
def test_state(tmp_path: Path, status: dict[str, Any], queue: dict[str, str] | None, expected: str) -> None:
    assert state_of(tmp_path, status, queue).name == expected


@pytest.mark.parametrize("pid", [os.getpid(), NOBODY, None], ids=["ours", "nobody", "none"])
@pytest.mark.parametrize("state", ["running", "queued"])
def test_the_lock_decides_and_no_process_id(tmp_path: Path, state: str, pid: int | None) -> None:
    status = {"state": state, "host": HERE, "pid": pid, "launcher": "../call/lock"}
    run, call = tmp_path / "run", tmp_path / "call"
    run.mkdir()
    call.mkdir()
    (run / LOCK).touch()
    assert state_of(run, status, None).name == "stale"
    with Lock(run / LOCK):
        assert state_of(run, status, None).name == ("running" if state == "running" else "waiting")
    with Lock(call / "lock"):  # of a launcher
        assert state_of(run, status, None).name == ("stale" if state == "running" else "waiting")


def test_a_job_outlives_the_daemon_of_its_node(tmp_path: Path) -> None:
    with Lock(tmp_path / LOCK):
        state = state_of(tmp_path, {"state": "running", **SLURM}, {"7_1": "NODE_FAIL"})
    assert (state.name, state.why) == ("running", "SLURM job 7_1 is node_fail, its process is not")


@pytest.mark.parametrize(("age", "expected"), [(1, "running"), (SILENT - 60, "running"), (SILENT + 60, "stale")])
def test_on_another_machine_silence_tells(tmp_path: Path, age: float, expected: str) -> None:
    updated = datetime.now(UTC) - timedelta(seconds=age)
    status = {"state": "running", "host": "elsewhere", "updated": updated.isoformat()}
    state = state_of(tmp_path, status, None)
    assert (state.name, state.certain) == (expected, expected == "stale")


def test_folders_that_cannot_be_read_are_rows() -> None:
    """Of a colleague; the process reads them as somebody else."""
    with shared_folder() as study:
        for name, mode in (("a", 0o755), ("b", 0o000), ("c", 0o755)):
            (study / name).mkdir()
            write_json(study / name / "status.json", {"state": "finished"})
            (study / name).chmod(mode)
        (study / "c" / "status.json").chmod(0o000)
        (study / "file").touch()
        (study / "empty").mkdir()
        found = as_nobody(lambda: [f"{row.name} {row.state.name} {row.state.why}" for row in rows_of(study, dict)])
    assert found == ["a done ", "b unreadable Permission denied", "c unreadable Permission denied"]


def test_exit_codes_and_reasons(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a folder with runs"):
        rows_of(tmp_path, lambda: None)
    (tmp_path / "a").mkdir()
    write_json(tmp_path / "a" / "status.json", {"state": "finished"})
    assert exit_code(rows_of(tmp_path, dict)) == 0
    (tmp_path / "b").mkdir()
    write_json(tmp_path / "b" / "status.json", {"state": "preempted", "preempted": 2, **SLURM})
    rows = rows_of(tmp_path, lambda: {"7_1": "PENDING"})
    assert exit_code(rows) == 3
    assert rows[1].state.why == "preempted 2 times"
    write_json(tmp_path / "a" / "status.json", {"state": "failed", "error": "ValueError: 3"})
    rows = rows_of(tmp_path, lambda: {"7_1": "PENDING"})
    assert exit_code(rows) == 1
    assert rows[0].state.why == "ValueError: 3"
    assert [row.name for row in rows_of(tmp_path / "b", dict)] == ["b"]


def test_the_table_shows_names_and_errors_as_they_are(tmp_path: Path) -> None:
    for name, error in (("[red]x", "[/nothing] \x1b[31m \n more"), ("b", "")):
        (tmp_path / name).mkdir()
        about = {"task": "finetune", "k": 3, "method": "fast"}
        write_json(tmp_path / name / "status.json", {"state": "failed", "error": error, "about": about})
    lines = table(rows_of(tmp_path, dict), tmp_path).plain.splitlines()
    assert lines[1].split() == ["job", "state", "task", "k", "method", "what"]
    assert lines[2].split() == ["[red]x", "failed", "finetune", "3", "fast", "[/nothing]", "\ufffd[31m", "more"]
    assert lines[-1] == "2 jobs: 2 failed"


def test_names_that_the_locale_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "[x]" / "é☃").mkdir(parents=True)
    write_json(tmp_path / "[x]" / "é☃" / "status.json", {"state": "failed", "error": "ü\ud800"})
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "RAPTOR_COLD": "1"}
    command = [sys.executable, "-m", "raptor.status", "[x]"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "??   failed" in done.stdout
