"""Signals of SLURM, in a process of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import multiprocessing, os, signal, sys, time
from raptor.utils import signals

def submitits(signum, frame):
    print("requeued", flush=True)
    sys.exit(255)

signal.signal(signal.SIGUSR2, submitits)
signals.KILL_WAIT = 4.0
signals.install(grace=2.0, rank=int(sys.argv[2]))
signals.save_first(sys.argv[1] != "impolite")
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
worker.start()
print(worker.pid, flush=True)
while not signals.asked() or sys.argv[1] == "late":
    time.sleep(0.01)
print("saved", flush=True)
try:
    signals.stop()
finally:  # as Lightning puts handlers back
    signals.take_over()
    for signum in (signal.SIGUSR2, signal.SIGTERM):
        os.kill(os.getpid(), signum)  # SLURM says it again
        time.sleep(0.05)
"""


@pytest.mark.parametrize(
    ("manner", "rank", "signum", "expected", "code"),
    [
        ("polite", 0, signal.SIGUSR2, ["saved", "requeued"], 255),
        ("polite", 0, signal.SIGTERM, ["saved"], 143),
        ("polite", 1, signal.SIGUSR2, ["saved"], 143),  # requeueing is rank 0's
        ("impolite", 0, signal.SIGUSR2, ["requeued"], 255),
        ("impolite", 0, signal.SIGTERM, [], 143),
        ("late", 0, signal.SIGUSR2, ["requeued"], 255),  # it did not save in half of the time
    ],
)
def test_who_is_asked_to_stop_saves_first(manner: str, rank: int, signum: int, expected: list[str], code: int) -> None:
    command = [sys.executable, "-c", PROGRAM, manner, str(rank)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        signal_worker(worker)
        process.send_signal(signum)
        said = process.stdout.read().split()
        assert (said, process.wait(timeout=30)) == (expected, code)


def signal_worker(pid: int) -> None:
    """A process that loads data leaves the warning to its main process, and lives on."""
    import os

    time.sleep(0.1)
    os.kill(pid, signal.SIGUSR2)
    time.sleep(0.1)
    os.kill(pid, 0)
