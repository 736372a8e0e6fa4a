"""Signals that end a process, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import multiprocessing, os, signal, sys, time
from raptor.utils import signals

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it

def submitits(signum, frame):
    print("requeued", flush=True)
    sys.exit(255)

signal.signal(signal.SIGUSR2, submitits)
signals.KILL_WAIT = 4.0
signals.install(grace=2.0, rank=int(sys.argv[2]))
if sys.argv[1] != "immediate":
    signals.defer_exit_until_saved()
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
worker.start()
print(worker.pid, flush=True)
while not signals.is_stop_requested() or sys.argv[1] == "late":
    time.sleep(0.01)
print("saved", flush=True)
try:
    signals.stop()
finally:  # as Lightning puts handlers back
    signals.reinstall_handlers()
    for signum in (signal.SIGUSR2, signal.SIGTERM):
        os.kill(os.getpid(), signum)  # SLURM sends it again
        time.sleep(0.05)
"""

WATCHED = """
import hashlib, os, sys, time
from raptor.utils import signals

def record():
    print("recorded", flush=True)

with signals.handled(record):
    signals.defer_exit_until_saved()
    print("ready", flush=True)
    try:
        if sys.argv[1] == "computes":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call without the interpreter's lock: no handler runs
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        if sys.argv[1] == "closes":
            time.sleep(60)
        raise
"""


@contextmanager
def started(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("manner", "rank", "signum", "expected", "code"),
    [
        ("deferred", 0, signal.SIGUSR2, ["saved", "requeued"], 255),
        ("deferred", 0, signal.SIGTERM, ["saved"], 143),
        ("deferred", 0, signal.SIGINT, ["saved"], 130),
        ("deferred", 0, signal.SIGHUP, ["saved"], 129),
        ("deferred", 1, signal.SIGUSR2, ["saved"], 143),  # requeueing is rank 0's
        ("immediate", 0, signal.SIGUSR2, ["requeued"], 255),
        ("immediate", 0, signal.SIGTERM, [], 143),
        ("immediate", 0, signal.SIGINT, [], -2),
        ("late", 0, signal.SIGUSR2, ["requeued"], 255),  # it did not save in half of the time
    ],
)
def test_a_training_saves_before_it_ends(manner: str, rank: int, signum: int, expected: list[str], code: int) -> None:
    with started(PROGRAM, manner, str(rank)) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        signal_worker(worker)
        process.send_signal(signum)
        printed = process.stdout.read().split()
        assert (printed, process.wait(timeout=30)) == (expected, code)


def signal_worker(pid: int) -> None:
    """A worker that loads data ignores what its main process handles, and lives on."""
    time.sleep(0.1)
    for signum in (signal.SIGUSR2, signal.SIGINT):
        os.kill(pid, signum)
    time.sleep(0.1)
    os.kill(pid, 0)


@pytest.mark.parametrize(
    ("manner", "expected"),
    [("waits", ["interrupted"]), ("closes", ["interrupted", "recorded"]), ("computes", ["recorded"])],
)
def test_a_second_interrupt_ends_within_two_seconds(manner: str, expected: list[str]) -> None:
    with started(WATCHED, manner) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # one alone lets it save
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        printed = process.stdout.read().split()
        code = process.wait(timeout=30)
        assert time.monotonic() - begin < 2
        assert printed == expected
        assert code == (-2 if manner == "waits" else 130)


def test_ignored_signals_stay_ignored() -> None:
    """As under nohup, and for jobs that a shell starts in the background."""
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{WATCHED}"
    with started(program, "waits") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
