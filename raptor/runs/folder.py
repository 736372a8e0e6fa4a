"""The run folder: one job's config, status, log, metrics, checkpoint, model and result.

Its path depends on the configuration alone, so that a second call finds it: finished runs say so, interrupted
ones continue.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from raptor.errors import RunFolderError, show
from raptor.runs import provenance
from raptor.runs.identity import STATUS, Flat, differences, digest, flatten, inputs
from raptor.runs.migration import CONFIG, IDENTITY, VERSION, recorded, roots
from raptor.runs.options import RunOptions
from raptor.utils import distributed, signals
from raptor.utils.files import read_json, write_json, write_text

log = logging.getLogger(__name__)

RESULT, LOG = "result.json", "log.txt"
PROVENANCE, DIFF = "provenance.json", "code.diff"
HAND_OVER = 5.0  # seconds within which whoever submitted a job lets go of its folder


def run_path(options: RunOptions, default_name: str, former_name: str | None = None) -> Path:
    """Return ``<paths.runs>/<study>/<name>``; without a name, ``default_name`` and a digest of the identity.

    Parameters
    ----------
    options
        Typed configuration.
    default_name
        Beginning of the folder's name where ``name`` is null.
    former_name
        The same in the first version of identities: a folder ``former_name-DIGEST`` of equal identity is taken.
    """
    study = Path(options.paths.runs) / str(options.study)
    if options.name is not None:
        return study / str(options.name)
    flat = flatten(options, roots(options))
    path = study / f"{default_name}-{digest(flat)[:6]}"
    if former_name is None or path.exists():
        return path
    for earlier in sorted(study.glob(f"{former_name}-{'[0-9a-f]' * 8}")):
        theirs = None if (earlier / IDENTITY).is_file() else recorded(earlier, type(options))
        if theirs is not None and not differences(flat, theirs):
            return earlier
    return path


class RunFolder:
    """One job's folder.

    Parameters
    ----------
    options
        Typed configuration of the job.
    config
        The same as it was composed.
    default_name, former_name
        As in :func:`run_path`.
    track_inputs
        Whether a run counts as another one when the models or files that it builds on have changed.
    path
        The folder, where it is not that of :func:`run_path`.
    has_result
        Whether the run ends in a ``result.json``; reports and stores do not.
    """

    def __init__(
        self,
        options: RunOptions,
        config: DictConfig,
        default_name: str,
        former_name: str | None = None,
        *,
        track_inputs: bool = True,
        path: Path | None = None,
        has_result: bool = True,
    ) -> None:
        self.options, self.config, self.track_inputs, self.has_result = options, config, track_inputs, has_result
        self.named = path is None  # whether the folder's name is that of the run
        self.path = path or run_path(options, default_name, former_name)
        self.code: dict[str, Any] | None = None  # what was submitted, where a launcher knows better than this process
        self._status: dict[str, Any] = {}

    def __str__(self) -> str:
        return str(self.path)

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run of this very configuration, None if it is not finished.

        Raises
        ------
        RunFolderError
            If the folder belongs to another configuration.
        """
        self._check_identity()
        status = read_json(self.path / STATUS)
        result = read_json(self.path / RESULT)
        return result if status and result and status.get("state") == "finished" else None

    def _check_identity(self) -> None:
        made = ("checkpoints", RESULT, "model.json")  # a run that failed before it made anything binds nobody
        theirs = recorded(self.path, type(self.options))
        if theirs is None or not any((self.path / name).exists() for name in made):
            return
        differing = differences(self._flat, theirs)
        if differing:
            some = list(differing.items())[:4]
            shown = "; ".join(f"{key} is {show(before)} there, {show(now)} here" for key, (before, now) in some)
            expected = f"a run of this configuration ({len(differing)} keys differ: {shown})"
            raise RunFolderError.of("folder", self.path, expected, "choose another name=..., or delete that folder")
        before = (read_json(self.path / STATUS) or {}).get("inputs", {})
        now = inputs(self.options) if self.track_inputs else before
        for key in before.keys() & now.keys():
            if before[key] != now[key]:
                expected = f"the same content as when {self.path} was made"
                fix = "delete that folder to run it anew, or choose another name=..."
                raise RunFolderError.of(key, self._flat.get(key, (key, None))[0], expected, fix)

    @cached_property
    def _flat(self) -> Flat:
        return flatten(self.options, roots(self.options))

    def is_recorded(self) -> bool:
        """Whether the folder records a run of this very configuration, whatever became of it."""
        theirs = recorded(self.path, type(self.options))
        return theirs is not None and not differences(self._flat, theirs)

    def _write_config(self) -> None:
        write_text(self.path / CONFIG, OmegaConf.to_yaml(self.config, resolve=True))
        values = {key: value for key, (value, _) in self._flat.items()}
        write_json(self.path / IDENTITY, {"version": VERSION, "command": self.options.command, "values": values})

    def status(self) -> dict[str, Any]:
        """What ``status.json`` says; empty if there is none."""
        return read_json(self.path / STATUS) or {}

    def enqueue(self, code: dict[str, Any]) -> None:
        """Write down what was submitted, before it is.

        Raises
        ------
        RunFolderError
            If a process is at work in the folder.
        """
        self.code = code
        self.path.mkdir(parents=True, exist_ok=True)
        with self._held(0.0):
            earlier = self.status()
            kept: dict[str, Any] = {key: earlier[key] for key in ("attempt", "preempted", "inputs") if key in earlier}
            self._status = {"state": "queued", **kept, "submitted": _now()}
            self._write_config()
            self._write_provenance(attempt=None)
            self.update()

    def queued_as(self, **where: Any) -> None:
        """Add where a job was queued (``slurm`` ids, or ``host`` and ``pid``), unless it has begun already."""
        try:
            with self._held(0.0):
                self._status = self.status()
                if self._status.get("state") == "queued":
                    self.update(**where)
        except RunFolderError:
            log.debug("%s has begun", self)

    def fail(self, error: BaseException) -> None:
        """Write down an error that came before :meth:`recording`."""
        self._status = self.status()
        before = (self._status.get("slurm") or {}).get("job")
        restarted = before is not None and before == provenance.slurm().get("job")
        state = self._status.get("state")
        if state in ("queued", "preempted", "interrupted") or (state == "running" and restarted):
            self.update(state="failed", error=f"{type(error).__name__}: {error}")

    @contextmanager
    def _held(self, timeout: float) -> Iterator[None]:
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            raise RunFolderError(f"{self.path} is in use by another process: wait for it, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hold the folder for this job: log to its file, keep its status, tell the truth about how it ended.

        Of several processes of one job, the first records.

        Raises
        ------
        RunFolderError
            If another process holds it, or it belongs to another configuration.
        """
        self._check_identity()
        if (rank := distributed.rank()) > 0:
            try:
                yield
            except Exception:
                write_text(self.path / f"error-rank{rank}.txt", traceback.format_exc())
                raise
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with self._held(HAND_OVER):
            handler = logging.FileHandler(self.path / LOG)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            root = logging.getLogger()
            root.addHandler(handler)
            try:
                self._begin()
                yield
            except BaseException as error:
                self._end(error)
                text = f"{self._status['state']}: {traceback.format_exc()}"
                handler.emit(logging.LogRecord("raptor", logging.ERROR, "", 0, text, None, None))
                raise
            finally:
                root.removeHandler(handler)
                handler.close()

    def _begin(self) -> None:
        earlier, machine = self.status(), provenance.machine()
        before, restarts = earlier.get("slurm") or {}, machine["slurm"].get("restarts", 0)
        if before.get("job") == machine["slurm"].get("job"):
            restarts -= before.get("restarts", 0)
        self._status = {
            "state": "running",
            "attempt": int(earlier.get("attempt", 0)) + 1,
            "preempted": int(earlier.get("preempted", 0)) + max(0, restarts),
            **({"submitted": earlier["submitted"]} if "submitted" in earlier else {}),
            "started": _now(),
            **machine,
            "inputs": inputs(self.options) if self.track_inputs else {},
        }
        self._write_config()
        self.update()
        self._write_provenance({"number": self._status["attempt"], "started": self._status["started"], **machine})

    def _end(self, error: BaseException) -> None:
        what = f"{type(error).__name__}: {error}"
        if signals.requeued():
            slurm = self._status["slurm"]
            self._status["slurm"] = slurm | {"restarts": slurm.get("restarts", 0) + 1}
            self.update(state="preempted", preempted=self._status["preempted"] + 1)
        elif isinstance(error, KeyboardInterrupt | SystemExit) or signals.asked():
            self.update(state="interrupted", error=what)
        else:
            self.update(state="failed", error=what)

    def _write_provenance(self, attempt: dict[str, Any] | None) -> None:
        earlier = read_json(self.path / PROVENANCE) or {}
        code = dict(self.code or provenance.code())
        diff = code.pop("diff", "")
        if diff:
            write_text(self.path / DIFF, diff)
        else:
            (self.path / DIFF).unlink(missing_ok=True)
        record = {"code": code | {"diff": DIFF if diff else None}, "versions": provenance.versions()}
        attempts = [*earlier.get("attempts", []), *([attempt] if attempt else [])]
        write_json(self.path / PROVENANCE, record | {"attempts": attempts})

    def update(self, **values: Any) -> None:
        """Write the status with the given fields changed."""
        if distributed.rank() == 0:
            self._status |= {**values, **({} if self.has_result else {"has_result": False}), "updated": _now()}
            write_json(self.path / STATUS, self._status)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result, then call the run finished; returns what was written."""
        if distributed.rank() > 0:
            return result
        result = {
            "schema": 1,
            "study": str(self.options.study),
            "name": self.path.name,
            **result,
            "attempts": self._status["attempt"],
            "versions": provenance.versions(),
        }
        write_json(self.path / RESULT, result)
        self.update(state="finished", **({"step": result["steps"]} if "steps" in result else {}))
        return read_json(self.path / RESULT) or {}


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
