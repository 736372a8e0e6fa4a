"""Signals that end a process: Ctrl-C, SIGTERM, SIGHUP, and SLURM's warning before time runs out or on preemption.

SLURM warns by SIGUSR2 (submitit's choice) before it kills; submitit then requeues the job. SLURM ends a job by SIGTERM,
and by SIGKILL some time later. A training finishes its step and saves before it ends. Everything else is saved as it
goes or cheap to repeat, and ends at once. A second Ctrl-C ends a training at once, too.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from raptor.errors import LaunchError

log = logging.getLogger(__name__)

WARNING, END, INTERRUPT, HANG_UP = signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP
KILL_WAIT = 30.0  # seconds from SIGTERM to SIGKILL, SLURM's default
FORCED = 1.0  # seconds that a second Ctrl-C leaves for an orderly end


@dataclass
class _State:
    """State of the end of this process."""

    pid: int | None = None  # of the process that handles signals; its workers inherit the handlers
    grace: float = math.inf
    received: int | None = None
    is_deferred: bool = False  # whether a training will save and call stop()
    requeue: Callable[[int, Any], Any] | None = None
    is_requeued: bool = False
    is_requeue_refused: bool = False
    is_ending: bool = False
    on_forced_exit: Callable[[], object] | None = None
    previous: dict[int, Any] = field(default_factory=dict)


_state = _State()


def install(grace: float = math.inf, rank: int = 0) -> None:
    """Handle the signals that end this process; call it in the main thread, after submitit set its own handlers.

    Parameters
    ----------
    grace
        Seconds between SLURM's warning and the end; saving may take half of them. Infinite outside of SLURM.
    rank
        This process among those of the job. Rank 0 requeues the job; the others wait for their end.
    """
    global _state
    requeue = signal.getsignal(WARNING)
    _state = _State(os.getpid(), grace, requeue=requeue if callable(requeue) and rank == 0 else None)
    for signum in (WARNING, END, INTERRUPT, HANG_UP, signal.SIGALRM):
        _state.previous[signum] = signal.getsignal(signum)
    reinstall_handlers()
    signal.signal(signal.SIGALRM, lambda *_: stop())


@contextmanager
def handled(on_forced_exit: Callable[[], object]) -> Iterator[None]:
    """Handle signals while a job runs; those of a process that runs one job alone stay as :func:`install` set them.

    Parameters
    ----------
    on_forced_exit
        Called before the process ends by a second Ctrl-C, from another thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    installed = _state.pid == os.getpid()
    if not installed:
        install()
    _state.on_forced_exit = on_forced_exit
    try:
        with _watched():
            yield
    finally:
        _state.on_forced_exit = None
        if not installed:
            _uninstall()


def _uninstall() -> None:
    global _state
    signal.setitimer(signal.ITIMER_REAL, 0)
    for signum, handler in _state.previous.items():
        signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
    _state = _State(received=_state.received)


def reinstall_handlers() -> None:
    """Set the handlers again where a library has replaced them; what a shell or nohup ignores stays ignored."""
    if _state.pid == os.getpid():
        for signum in (WARNING, END, INTERRUPT, HANG_UP):
            ignored = signum in (INTERRUPT, HANG_UP) and _state.previous[signum] == signal.SIG_IGN
            signal.signal(signum, signal.SIG_IGN if ignored else _handle)


def _handle(signum: int, frame: Any) -> None:
    if os.getpid() != _state.pid:  # a process forked from this one
        if signum == END:
            _exit_after_delay()
        return
    if _state.is_ending:  # SLURM sends a signal twice, and libraries put handlers back as they leave
        return
    again = signum == INTERRUPT == _state.received
    if _state.received is None:
        again_stops = "; Ctrl-C again stops at once" if signum == INTERRUPT else ""
        log.warning("%s: %s", _name(signum), f"saving first{again_stops}" if _state.is_deferred else "stopping")
    if _state.received != WARNING:  # a SIGTERM that follows must not cancel the requeue
        _state.received = signum
    if again or not _state.is_deferred:
        if signum == INTERRUPT:
            raise KeyboardInterrupt
        stop()
    elif _state.grace < math.inf:
        seconds = _state.grace if signum == WARNING else min(_state.grace, KILL_WAIT)
        signal.setitimer(signal.ITIMER_REAL, seconds / 2)


def _name(signum: int) -> str:
    return "Ctrl-C" if signum == INTERRUPT else signal.Signals(signum).name


def is_stop_requested() -> bool:
    """Whether this process was signalled to end."""
    return _state.received is not None


def received() -> int | None:
    """Return the signal that ends this process, None if there was none."""
    return _state.received


def follow(signum: int) -> None:
    """End by a signal that another process of the job received."""
    if _state.received is None:
        _state.received = signum


def reason() -> str:
    """Name of the signal that ends this process; empty if there was none."""
    return "" if _state.received is None else _name(_state.received)


def exit_code() -> int | None:
    """Exit code by the signal that was received, None if there was none; SLURM's warning ends like SIGTERM."""
    received = _state.received
    return None if received is None else 128 + (END if received == WARNING else received)


def is_requeued() -> bool:
    """Whether this process ends because its job was put back into the queue."""
    return _state.is_requeued


def is_requeue_refused() -> bool:
    """Whether this process ends because its job may not go back into the queue any more."""
    return _state.is_requeue_refused


def defer_exit_until_saved() -> None:
    """Leave the end to a training, which checks :func:`is_stop_requested`, saves and calls :func:`stop`."""
    _state.is_deferred = True


def exit_on_signal() -> None:
    """End at once by the next signal: undo :func:`defer_exit_until_saved`."""
    _state.is_deferred = False


def stop() -> None:
    """End this process by the signal it received; after a warning, its job goes back into the queue."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _state.is_ending = True
    if _state.received == WARNING:
        _state.is_requeued = True
        if _state.requeue is not None:
            try:
                _state.requeue(WARNING, None)  # submitit's: requeues the job and exits
            except Exception as refused:  # it has run out of time too often
                _state.is_requeued, _state.is_requeue_refused = False, True
                expected = f"time for all steps in fewer attempts ({refused})"
                fix = "set hydra.launcher.timeout_min or max_num_timeout higher; the same command continues"
                raise LaunchError.of("hydra.launcher", "slurm", expected, fix) from None
        if _state.grace < math.inf:
            time.sleep(_state.grace)  # an early end of one rank would end the others before they are requeued
    sys.exit(exit_code() or 128 + END)


@contextmanager
def _watched() -> Iterator[None]:
    """Force the exit soon after a second Ctrl-C, also while the main thread computes or waits and runs no handler."""
    reader, writer = socket.socketpair()
    writer.settimeout(0)  # never block
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()  # ends the thread


def _watch(reader: socket.socket) -> None:
    interrupts, end = 0, math.inf
    with reader:
        while (left := end - time.monotonic()) > 0:
            reader.settimeout(None if left == math.inf else left)
            try:
                signums = reader.recv(64)
            except TimeoutError:
                break
            if not signums:  # the job has ended
                return
            interrupts += signums.count(INTERRUPT)
            if interrupts >= 2:
                end = min(end, time.monotonic() + FORCED)
        _force_exit()


def _force_exit() -> None:
    if _state.on_forced_exit is not None:
        _state.on_forced_exit()
    leave(128 + INTERRUPT)


def leave(code: int) -> NoReturn:
    """End this process without taking the interpreter down, which takes seconds on a busy machine.

    Parameters
    ----------
    code
        Exit code.
    """
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _forget_watch_in_child() -> None:
    """Stop a forked process from reporting its signals to the watch of this one."""
    if _state.on_forced_exit is not None:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_watch_in_child)


def ignore_signals_in_worker(worker: int = 0) -> None:
    """Leave signals to the main process of a data-loading worker; end some time after SIGTERM.

    Parameters
    ----------
    worker
        Number of the worker, which ``DataLoader`` hands over; without effect.
    """
    for signum in (WARNING, INTERRUPT, HANG_UP):
        signal.signal(signum, signal.SIG_IGN)
    if _state.pid is not None:
        signal.signal(END, lambda *_: _exit_after_delay())


def _exit_after_delay() -> None:
    """End later: while the main process saves, a worker that is gone would be an error."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, KILL_WAIT / 2)
