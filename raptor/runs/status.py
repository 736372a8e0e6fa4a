"""How a job does, by its status file and, where there is one, SLURM's queue."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError
from raptor.runs.identity import STATUS
from raptor.utils.files import read_json

ENDED = ("done", "failed", "stale")
PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")  # SLURM's words
SILENT = 900.0  # seconds without an update after which a job on another machine counts as dead


@dataclass(frozen=True)
class State:
    """One job's state.

    Parameters
    ----------
    name
        ``done``, ``failed``, ``running``, ``waiting`` (for its turn, or to be continued) or ``stale`` (nobody is at
        work on it any more, and nobody will be).
    why
        More, for people.
    certain
        Whether it was checked that the job is alive.
    """

    name: str
    why: str = ""
    certain: bool = True


def state_of(status: Mapping[str, Any], queue: Mapping[str, str] | None) -> State:
    """State of a job.

    Parameters
    ----------
    status
        Its ``status.json``; empty if there is none.
    queue
        Of :func:`raptor.launching.slurm.states`.
    """
    said = str(status.get("state", "no status"))
    if said == "finished":
        return State("done")
    ident: str | None = (status.get("slurm") or {}).get("job")
    if said == "failed" and (queue or {}).get(ident or "", "gone") not in PENDING:
        return State("failed", status.get("error", ""))
    times = status.get("preempted", 0)
    stopped = f"preempted {times} times" if times else ""
    if ident:
        return _in_slurm(ident, said, queue, stopped, status.get("error", ""))
    if said not in ("queued", "running"):
        return State("stale", status.get("error", said))
    if status.get("host") == platform.node():
        if _alive(status.get("pid")):
            return State("running" if said == "running" else "waiting")
        return State("stale", f"its process {status.get('pid')} is gone")
    if _seconds_since(status.get("updated")) > SILENT:
        return State("stale", f"{status.get('host') or 'its machine'} has been silent since {status.get('updated')}")
    return State("running" if said == "running" else "waiting", certain=False)


def _in_slurm(ident: str, said: str, queue: Mapping[str, str] | None, stopped: str, error: str) -> State:
    if queue is None:
        return State("running" if said == "running" else "waiting", f"{stopped} (SLURM cannot be asked)".strip(), False)
    now = queue.get(ident, "gone")
    if now in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"):
        return State("running" if said == "running" else "waiting", stopped)
    if now in PENDING:
        return State("waiting", stopped)
    return State("stale", f"SLURM job {ident} is {now.lower()}; {error}".removesuffix("; "))


def _alive(pid: Any) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
        How it does.
    status
        What ``status.json`` says.
    """

    name: str
    state: State
    status: Mapping[str, Any]


def rows_of(root: Path, ask: Callable[[], Mapping[str, str] | None]) -> list[Row]:
    """All jobs of a study, or the one job whose folder is given.

    Parameters
    ----------
    root
        Folder of either.
    ask
        Asks SLURM for its queue; called if a job was submitted to it.

    Raises
    ------
    ConfigError
        If there is none.
    """
    paths = [root / STATUS] if (root / STATUS).is_file() else sorted(root.glob(f"*/{STATUS}"))
    if not paths:
        raise ConfigError(f"{root} holds no run: name the folder of a study, such as runs/demo, or of a run")
    statuses = {path.parent.name: read_json(path) or {} for path in paths}
    queue = ask() if any(map(in_slurm, statuses.values())) else {}
    return [Row(name, state_of(status, queue), status) for name, status in statuses.items()]


def in_slurm(status: Mapping[str, Any]) -> bool:
    """Whether SLURM may still have something to do with a job."""
    return bool(status.get("slurm")) and status.get("state") != "finished"
