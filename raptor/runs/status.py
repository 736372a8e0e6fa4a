"""State of a job, from its status file, its locks and, where there is one, SLURM's queue."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError
from raptor.utils.files import read_json
from raptor.utils.locks import is_held

STATUS, LOCK = "status.json", ".lock"
ENDED = ("done", "failed", "interrupted", "stale", "unreadable")
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")  # SLURM's words
ACTIVE = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
SILENT = 900.0  # seconds without an update after which a job on another machine counts as dead


@dataclass(frozen=True)
class State:
    """State of one job.

    Parameters
    ----------
    name
        ``done``, ``failed``, ``interrupted`` (by a signal), ``running``, ``waiting`` (to begin, or to be continued),
        ``stale`` (its process is gone and will not be restarted) or ``unreadable``.
    why
        Human-readable detail.
    certain
        Whether it was checked that the job is alive.
    """

    name: str
    why: str = ""
    certain: bool = True


def state_of(folder: Path, status: Mapping[str, Any], queue: Mapping[str, str] | None) -> State:
    """Determine the state of a job.

    Parameters
    ----------
    folder
        Its run folder.
    status
        Its ``status.json``; empty if there is none.
    queue
        Of :func:`raptor.launching.queue.states`.
    """
    recorded = str(status.get("state", "no status"))
    if recorded == "finished":
        left = status.get("ended_early")
        return State("done", f"ended {left} steps early" if left else "")
    ident: str | None = (status.get("slurm") or {}).get("job")
    if recorded == "failed" and (queue or {}).get(ident or "", "gone") not in PENDING:
        return State("failed", status.get("error", ""))
    if ident:
        return _in_slurm(folder, ident, status, queue)
    if recorded == "interrupted":
        return State("interrupted", status.get("error", ""))
    if recorded not in ("queued", "running"):
        return State("stale", status.get("error", recorded))
    name, busy = "running" if recorded == "running" else "waiting", is_at_work(folder, status)
    if busy:
        return State(name)
    elsewhere = status.get("host") != platform.node()
    if elsewhere and _seconds_since(status.get("updated")) <= SILENT:  # its lock may be known to that machine alone
        return State(name, certain=False)
    if busy is None and not elsewhere:
        return State(name, certain=False)
    silent = f", silent since {status.get('updated')}" if elsewhere else ""
    what = "process" if recorded == "running" else "launcher"
    return State("stale", f"its {what} ({status.get('pid')} on {status.get('host')}) is gone{silent}")


def is_at_work(folder: Path, status: Mapping[str, Any]) -> bool | None:
    """Whether a process holds a run folder, or the launcher that queued it is alive; None if that is unknown."""
    held = [is_held(folder / LOCK)]
    if status.get("state") == "queued" and "launcher" in status:
        held.append(is_held(folder / status["launcher"]))
    return True if True in held else None if None in held else False


def _in_slurm(folder: Path, ident: str, status: Mapping[str, Any], queue: Mapping[str, str] | None) -> State:
    recorded, error = str(status.get("state")), status.get("error", "")
    name, times = "running" if recorded == "running" else "waiting", status.get("preempted", 0)
    stopped = f"preempted {times} times" if times else ""
    if queue is None:
        return State(name, f"{stopped} (SLURM does not answer)".strip(), certain=False)
    now = queue.get(ident, "gone")
    if now in ACTIVE:
        return State(name, stopped)
    why = f"SLURM job {ident} is {now.lower()}"
    if recorded == "running" and is_held(folder / LOCK):  # the daemon of its node died, not the job
        return State("running", f"{why}, its process is not")
    if now in PENDING:
        return State("waiting", stopped)
    return State("interrupted" if recorded == "interrupted" else "stale", f"{why}; {error}".removesuffix("; "))


def _seconds_since(moment: Any) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except (TypeError, ValueError):
        return float("inf")


@dataclass(frozen=True)
class Row:
    """One line of the status table.

    Parameters
    ----------
    name
        Of the run folder.
    state
        State of the job.
    status
        Its ``status.json``.
    """

    name: str
    state: State
    status: Mapping[str, Any]


def rows_of(root: Path, read_queue: Callable[[], Mapping[str, str] | None]) -> list[Row]:
    """List all jobs of a study, or the one job whose folder is given.

    Parameters
    ----------
    root
        Folder of either.
    read_queue
        Returns SLURM's queue; called if a job was submitted to it.

    Raises
    ------
    ConfigError
        If there is none.
    """
    statuses, unreadable = read_statuses(root)
    if not statuses and not unreadable:
        fix = "name the folder of a study, such as runs/demo, or of a run"
        raise ConfigError.of("folder", root, "a folder with runs", fix)
    queue = read_queue() if any(map(in_slurm, statuses.values())) else {}
    rows = [Row(path.name, state_of(path, status, queue), status) for path, status in statuses.items()]
    rows += [Row(path.name, State("unreadable", reason), {}) for path, reason in unreadable.items()]
    return sorted(rows, key=lambda row: row.name)


def read_statuses(root: Path) -> tuple[dict[Path, dict[str, Any]], dict[Path, str]]:
    """Read the status files below a study's folder, or that of a run folder.

    Returns
    -------
    dict, dict
        Contents by run folder; and the reasons of those that could not be read.
    """
    statuses, unreadable = {}, {}
    try:
        if (root / STATUS).is_file():
            folders = [root]
        else:
            with os.scandir(root) as entries:
                folders = [Path(entry.path) for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return {}, {}
    except OSError as error:
        return {}, {root: str(error.strerror)}
    for folder in folders:
        try:
            status = read_json(folder / STATUS)
            if status is not None or (folder / STATUS).exists():
                statuses[folder] = status or {}
        except OSError as error:
            unreadable[folder] = str(error.strerror)
    return statuses, unreadable


def in_slurm(status: Mapping[str, Any]) -> bool:
    """Whether SLURM may still have a job in its queue."""
    return bool(status.get("slurm")) and status.get("state") != "finished"
