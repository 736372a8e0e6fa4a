"""What a status file and SLURM's queue say together."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raptor.errors import ConfigError
from raptor.runs.status import SILENT, rows_of, state_of
from raptor.status import exit_code
from raptor.utils.files import write_json

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
        ({"state": "interrupted", **SLURM}, {"7_1": "CANCELLED"}, "stale"),
        ({"state": "running", "host": HERE, "pid": os.getpid()}, {}, "running"),
        ({"state": "queued", "host": HERE, "pid": os.getpid()}, None, "waiting"),
        ({"state": "running", "host": HERE, "pid": NOBODY}, None, "stale"),
        ({"state": "interrupted", "host": HERE, "pid": os.getpid()}, None, "stale"),
        ({}, None, "stale"),
    ],
)
def test_state(status: dict[str, Any], queue: dict[str, str] | None, expected: str) -> None:
    assert state_of(status, queue).name == expected


@pytest.mark.parametrize(("age", "expected"), [(1, "running"), (SILENT - 60, "running"), (SILENT + 60, "stale")])
def test_on_another_machine_silence_tells(age: float, expected: str) -> None:
    updated = datetime.now(UTC) - timedelta(seconds=age)
    assert state_of({"state": "running", "host": "elsewhere", "updated": updated.isoformat()}, None).name == expected


def test_exit_codes_and_reasons(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
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
