"""Being asked to stop by SLURM: before time runs out, on preemption, on requeue, on cancellation.

SLURM warns by USR2 (submitit's choice) some time before it kills; submitit then has the job requeued. It ends a
job by TERM, and KILL after a while. A training is asked first to finish its step and save; everything else, which
is saved as it goes or cheap to repeat, stops at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

WARNING, END = signal.SIGUSR2, signal.SIGTERM
KILL_WAIT = 30.0  # SLURM's default, from TERM to KILL


@dataclass
class _State:
    """What this process knows of its end."""

    pid: int | None = None  # of the process that answers; those that load data inherit its handlers
    grace: float = 0.0
    asked_by: int | None = None
    polite: bool = False  # whether somebody will save and call stop()
    requeue: Callable[[int, Any], Any] | None = None
    requeued: bool = False
    ending: bool = False


_state = _State()


def install(grace: float, rank: int = 0) -> None:
    """Answer SLURM's signals from now on; to be called once submitit has set its own handlers.

    Parameters
    ----------
    grace
        Seconds between warning and end; who was asked to save has half of them.
    rank
        This process among those of the job. Rank 0 has the job requeued; the others wait for their end.
    """
    global _state
    requeue = signal.getsignal(WARNING)
    _state = _State(os.getpid(), grace, requeue=requeue if callable(requeue) and rank == 0 else None)
    take_over()
    signal.signal(signal.SIGALRM, lambda *_: stop())


def take_over() -> None:
    """Answer again, where a library has put itself in between."""
    if _state.pid == os.getpid():
        for signum in (WARNING, END):
            signal.signal(signum, _answer)


def _answer(signum: int, frame: Any) -> None:
    if os.getpid() != _state.pid:
        if signum == END:
            _outlive()
        return
    if _state.ending:  # SLURM says it again, and libraries put handlers back as they leave
        return
    if _state.asked_by is None:
        log.warning("%s: %s", signal.Signals(signum).name, "saving first" if _state.polite else "stopping")
    if _state.asked_by != WARNING:  # its requeue must not be forgotten over a TERM that follows
        _state.asked_by = signum
    if _state.polite:
        seconds = _state.grace if signum == WARNING else min(_state.grace, KILL_WAIT)
        signal.setitimer(signal.ITIMER_REAL, seconds / 2)
    else:
        stop()


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _state.asked_by is not None


def requeued() -> bool:
    """Whether this process stops because its job was put back into the queue."""
    return _state.requeued


def save_first(on: bool) -> None:
    """Say whether somebody watches :func:`asked`, and will save and call :func:`stop`."""
    _state.polite = on


def stop() -> None:
    """End this process as it was asked to; after a warning, its job goes back into the queue."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _state.ending = True
    if _state.asked_by == WARNING:
        _state.requeued = True
        if _state.requeue is not None:
            try:
                _state.requeue(WARNING, None)  # submitit's: requeues the job and exits
            except Exception:
                _state.requeued = False  # it has run out of time too often
                raise
        time.sleep(_state.grace)  # an early end of one rank would end the others before they are requeued
    sys.exit(128 + END)


def leave_to_the_main_process(worker: int = 0) -> None:
    """Let a process that loads data ignore what its main process answers, and end only some time after a TERM."""
    signal.signal(WARNING, signal.SIG_IGN)
    if _state.pid is not None:
        signal.signal(END, lambda *_: _outlive())


def _outlive() -> None:
    """End in a while: while the main process saves, a worker that is gone would be an error."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, KILL_WAIT / 2)
