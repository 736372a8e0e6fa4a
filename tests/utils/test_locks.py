"""Locks between processes, with flock and without."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raptor.utils.locks import BusyError, Lock, Owner, is_held

HOLD = """
import errno, fcntl, os, sys, time
from pathlib import Path
from raptor.utils.locks import Lock
if sys.argv[2] != "flock":
    def refuse(*_):
        raise OSError(getattr(errno, sys.argv[2]), "no locks here")
    fcntl.flock = refuse
lock = Lock(Path(sys.argv[1]))
lock.acquire()
child = os.fork() if len(sys.argv) > 3 else 0
if child or len(sys.argv) <= 3:
    print(child, flush=True)
time.sleep(60)
"""
KINDS = ["flock", "ENOLCK", "EOPNOTSUPP", "ENOSYS"]


def hold(path: Path, kind: str, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), kind, *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stdout:
        child = stdout.readline().strip()
    if more:
        process.child = int(child)  # type: ignore[attr-defined]
    return process


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "flock":

        def refuse(*_: object) -> None:
            raise OSError(getattr(errno, request.param), "no locks here")

        monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


def test_a_lock_ends_with_its_process_and_names_it_before(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert is_held(path) is False
    process = hold(path, kind)
    try:
        assert is_held(path) is True
        begin = time.monotonic()
        with pytest.raises(BusyError) as busy:
            Lock(path).acquire(timeout=0.3)
        assert 0.3 <= time.monotonic() - begin < 5
        assert busy.value.owner is not None
        assert (busy.value.owner.pid, busy.value.owner.host) == (process.pid, platform.node())
        assert re.search(rf"process {process.pid} on .*, for \d+ s$", str(busy.value))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_held(path) is False
    with Lock(path):
        assert is_held(path) is True
    assert is_held(path) is False


def test_a_lock_of_another_host_can_be_deleted(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first = Lock(path)
    first.acquire()
    used = path
    if kind != "flock":
        used = tmp_path / ".lock.owner"
        used.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "x", "since": time.time() - 7300}))
        assert is_held(path) is None  # only that machine could tell
    with pytest.raises(BusyError) as busy:
        Lock(path).acquire()
    assert busy.value.path == used
    if kind != "flock":
        assert "process 1 on elsewhere, for 2 h" in str(busy.value)
    used.unlink()
    with Lock(path):
        assert is_held(path) is True


@pytest.mark.parametrize("kind", KINDS[1:], indirect=True)
def test_a_marker_without_a_name_counts_for_a_minute(kind: str, tmp_path: Path) -> None:
    """Its process died between two operations, or the disk was full."""
    path, marker = tmp_path / ".lock", tmp_path / ".lock.owner"
    path.touch()
    marker.touch()
    assert is_held(path) is True
    with pytest.raises(BusyError) as busy:
        Lock(path).acquire()
    assert busy.value.path == marker
    os.utime(marker, (0, time.time() - 61))
    assert is_held(path) is False
    with Lock(path):
        assert is_held(path) is True


def test_a_child_does_not_keep_the_lock_of_a_parent_that_was_killed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process = hold(path, kind, "fork")
    child = process.child  # type: ignore[attr-defined]
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)
        end = time.monotonic() + 30
        while is_held(path) and time.monotonic() < end:  # until the child runs, and closes what it inherited
            time.sleep(0.01)
        assert is_held(path) is False
        with Lock(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_process_id_that_was_given_out_again_is_another_process() -> None:
    ours = Owner.current()
    assert not ours.is_gone
    assert Owner(ours.host, ours.pid, f"{ours.born}0", ours.since).is_gone
    assert Owner(ours.host, 2**22 + 1, ours.born, ours.since).is_gone
    assert not Owner("elsewhere", 2**22 + 1, ours.born, ours.since).is_gone


def test_other_errors_of_the_file_system_are_not_swallowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"):
        Lock(tmp_path / ".lock").acquire()
    assert is_held(tmp_path / ".lock") is None
