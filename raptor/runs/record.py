"""What a run records of itself: ``status.json``, ``provenance.json`` and its log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raptor.errors import Unfinished
from raptor.runs import provenance
from raptor.runs.status import STATUS
from raptor.runs.storage import overwrite
from raptor.utils import distributed, signals
from raptor.utils.files import read_json, write_json, write_text

log = logging.getLogger(__name__)

PROVENANCE, DIFF = "provenance.json", "code.diff"


class Record:
    """Status and provenance of a run.

    Parameters
    ----------
    path
        Run folder.
    about
        What a table of runs shows beside the name.
    has_result
        Whether the run ends in a ``result.json``.
    """

    def __init__(self, path: Path, about: dict[str, Any], *, has_result: bool) -> None:
        self.path, self.about, self.has_result = path, about, has_result
        self.code: dict[str, Any] | None = None  # what was submitted, where a launcher recorded it before this process
        self.status: dict[str, Any] = {}
        self.has_begun = False
        self._writing = threading.Lock()

    def read(self) -> dict[str, Any]:
        """Return the content of ``status.json``; empty if there is none."""
        return read_json(self.path / STATUS) or {}

    def enqueue(self, launcher: str) -> None:
        """Record that a job waits for the launcher that holds a lock, whose path is relative to the run folder."""
        earlier = self.read()
        kept: dict[str, Any] = {key: earlier[key] for key in ("attempt", "preempted", "inputs") if key in earlier}
        by = {"launcher": launcher, **provenance.process()}
        self.status = {"state": "queued", **kept, "about": self.about, "submitted": now(), **by}
        self.update()
        self._write_provenance(attempt=None)

    def queued_as(self, ident: str) -> None:
        """Record the id in SLURM's queue of a job that has not begun."""
        self.status = self.read()
        if self.status.get("state") == "queued":
            self.status.pop("launcher", None)
            self.update(slurm={"job": ident, "restarts": 0})

    def begin(self, inputs: dict[str, str]) -> None:
        """Record the beginning of an attempt.

        Parameters
        ----------
        inputs
            Digests of what the run builds on, by key.
        """
        earlier, machine = self.read(), provenance.machine()
        before, restarts = earlier.get("slurm") or {}, machine["slurm"].get("restarts", 0)
        if before.get("job") == machine["slurm"].get("job"):
            restarts -= before.get("restarts", 0)
        self.status = {
            "state": "running",
            "attempt": int(earlier.get("attempt", 0)) + 1,
            "preempted": int(earlier.get("preempted", 0)) + max(0, restarts),
            **({"submitted": earlier["submitted"]} if "submitted" in earlier else {}),
            "about": self.about,
            "started": now(),
            **machine,
            "inputs": inputs,
        }
        self.update()
        self.has_begun = True
        self._write_provenance({"number": self.status["attempt"], "started": self.status["started"], **machine})

    def end(self, error: BaseException) -> None:
        """Record how an attempt ended that did not finish, as far as the disk allows."""
        try:
            self._end(error)
        except OSError as disk:
            log.error("%s: its end cannot be recorded (%s)", self.path, disk)

    def _end(self, error: BaseException) -> None:
        if not self.has_begun:
            self.fail(error)
            return
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        if signals.is_requeued():
            slurm = self.status["slurm"]
            self.status["slurm"] = slurm | {"restarts": slurm.get("restarts", 0) + 1}
            self.update(state="preempted", preempted=self.status["preempted"] + 1)
        elif signals.is_requeue_refused():
            self.update(state="failed", error=what)
        elif isinstance(error, KeyboardInterrupt | SystemExit | Unfinished) or signals.is_stop_requested():
            self.update(state="interrupted", error=f"stopped by {signals.reason()}" if signals.reason() else what)
        else:
            self.update(state="failed", error=what)

    def fail(self, error: BaseException) -> None:
        """Record an error, or an interrupt, of a job that could not begin."""
        if self.has_begun:
            return
        self.status = self.read()
        before = (self.status.get("slurm") or {}).get("job")
        restarted = before is not None and before == provenance.slurm().get("job")
        state = self.status.get("state")
        if state in ("queued", "preempted") or (state in ("running", "interrupted") and restarted):
            ending = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            self.update(state=ending, error=f"{type(error).__name__}: {error}".removesuffix(": "))

    def force_end(self) -> None:
        """Record a second Ctrl-C, from another thread; the process ends right after."""
        if self.has_begun and self._writing.acquire(timeout=0.5):  # never released: nothing may follow
            self._write(state="interrupted", error="stopped at once by a second Ctrl-C")

    def update(self, **values: Any) -> None:
        """Write the status with the given fields changed."""
        if distributed.rank() == 0:
            with self._writing:
                self._write(**values)

    def _write(self, **values: Any) -> None:
        self.status |= {**values, **({} if self.has_result else {"has_result": False}), "updated": now()}
        try:
            write_json(self.path / STATUS, self.status)
        except OSError as error:
            if not overwrite(self.path / STATUS, self.status):
                raise error from None

    def _write_provenance(self, attempt: dict[str, Any] | None) -> None:
        earlier = read_json(self.path / PROVENANCE) or {}
        code = dict(self.code or provenance.code())
        diff = code.pop("diff", "")
        if diff:
            write_text(self.path / DIFF, diff, private=True)  # other users may not read what was not committed
        else:
            (self.path / DIFF).unlink(missing_ok=True)
        record = {"code": code | {"diff": DIFF if diff else None}, "versions": provenance.versions()}
        attempts = [*earlier.get("attempts", []), *([attempt] if attempt else [])]
        write_json(self.path / PROVENANCE, record | {"attempts": attempts})


class _LogFile(logging.FileHandler):
    """Log of a run; what a full disk does not take is on the terminal too."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Print no traceback of the handler."""


@contextmanager
def logged_to(path: Path) -> Iterator[logging.Handler]:
    """Write all messages to a file, too."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        handler.close()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
