"""The run folder: one job's config, status, log, metrics, checkpoint, model and result.

Its path depends on the configuration alone, so that a second call finds it: finished runs say so, interrupted
ones continue.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from raptor.errors import RunFolderError, show
from raptor.runs import provenance
from raptor.runs.identity import Flat, differences, digest, flatten, inputs
from raptor.runs.migration import CONFIG, IDENTITY, VERSION, recorded, roots, values_of
from raptor.runs.options import RunOptions
from raptor.runs.record import Record, logged_to
from raptor.runs.status import LOCK, STATUS
from raptor.runs.storage import storage_errors
from raptor.utils import distributed, signals
from raptor.utils.files import read_json, sha256, write_json, write_text
from raptor.utils.locks import BusyError, Lock, is_held

log = logging.getLogger(__name__)

RESULT, LOG = "result.json", "log.txt"
MODEL, DESCRIPTION = "model.safetensors", "model.json"  # raptor.models.io has them too, and imports torch
HAND_OVER = 5.0  # seconds within which the launcher of a job lets go of its folder
BRIEFLY = 1.0  # seconds for a look at the lock by another process, which takes it for a moment


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
        self._record = Record(self.path, options.about | provenance.method(), has_result=has_result)

    def __str__(self) -> str:
        return str(self.path)

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished run of this very configuration, None if it is not finished.

        Raises
        ------
        RunFolderError
            If the folder belongs to another configuration.
        """
        with storage_errors(self.path):
            self._check_identity()
            status = read_json(self.path / STATUS)
            result = read_json(self.path / RESULT)
            finished = bool(status and result and status.get("state") == "finished")
            if finished and self._is_model_damaged():
                log.warning("%s: %s is damaged and is made again", self.path, MODEL)
                finished = False
        return result if finished else None

    def _is_model_damaged(self) -> bool:
        description, weights = read_json(self.path / DESCRIPTION), self.path / MODEL
        return description is not None and weights.is_file() and sha256(weights) != description.get("sha256")

    def _check_identity(self) -> None:
        made = ("checkpoints", RESULT, "model.json")  # a run that failed before it made anything may be replaced
        theirs = recorded(self.path, type(self.options))
        if theirs is None or not any((self.path / name).exists() for name in made):
            return
        if shown := self._differences(theirs):
            expected = f"a run of this configuration ({shown})"
            raise RunFolderError.of("folder", self.path, expected, "choose another name=..., or delete that folder")
        before = (read_json(self.path / STATUS) or {}).get("inputs", {})
        now = inputs(self.options) if self.track_inputs else before
        for key in before.keys() & now.keys():
            if before[key] != now[key]:
                expected = f"the same content as when {self.path} was made"
                fix = "delete that folder to run it anew, or choose another name=..."
                raise RunFolderError.of(key, self._flat.get(key, (key, None))[0], expected, fix)

    def _differences(self, theirs: Mapping[str, Any]) -> str:
        differing = differences(self._flat, theirs)
        some = list(differing.items())[:4]
        shown = "; ".join(f"{key} is {show(before)} there, {show(now)} here" for key, (before, now) in some)
        return f"{len(differing)} keys differ: {shown}" if differing else ""

    def differences_from(self, record: Mapping[str, Any]) -> str:
        """Say in words how a record of :meth:`identity_record` differs from this run; empty if it does not."""
        return self._differences(values_of(record, type(self.options), self.path))

    def identity_record(self) -> dict[str, Any]:
        """Return the run's identity as files keep it."""
        values = {key: value for key, (value, _) in self._flat.items()}
        return {"version": VERSION, "command": self.options.command, "values": values}

    @cached_property
    def _flat(self) -> Flat:
        return flatten(self.options, roots(self.options))

    def is_recorded(self) -> bool:
        """Whether the folder records a run of this very configuration, whatever became of it."""
        theirs = recorded(self.path, type(self.options))
        return theirs is not None and not differences(self._flat, theirs)

    def _write_config(self) -> None:
        write_text(self.path / CONFIG, OmegaConf.to_yaml(self.config, resolve=True))
        write_json(self.path / IDENTITY, self.identity_record())

    @property
    def about(self) -> dict[str, Any]:
        """What a table of runs shows beside the name."""
        return self._record.about

    def submitted_with(self, code: dict[str, Any], about: dict[str, Any]) -> None:
        """Record the code and the description of a job as they were when it was submitted."""
        self._record.code, self._record.about = code, about or self.about

    def status(self) -> dict[str, Any]:
        """Return the content of ``status.json``; empty if there is none."""
        with storage_errors(self.path):
            return self._record.read()

    def enqueue(self, launcher: Path) -> None:
        """Record a job before it is submitted.

        Parameters
        ----------
        launcher
            File that is locked as long as the launcher lives.

        Raises
        ------
        RunFolderError
            If a process is at work in the folder, or it belongs to another configuration.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with self._held(BRIEFLY):
                self._check_identity()
                self._write_config()
                self._record.enqueue(os.path.relpath(launcher, self.path))

    def queued_as(self, ident: str) -> None:
        """Record the id of a job in SLURM's queue, unless it has begun already."""
        try:
            with self._held(BRIEFLY):
                self._record.queued_as(ident)
        except RunFolderError:
            log.debug("%s has begun", self)

    def fail(self, error: BaseException) -> None:
        """Record an error, or an interrupt, that came before :meth:`recording`; not where another process records."""
        if not is_held(self.path / LOCK):
            self._record.fail(error)

    def update(self, **values: Any) -> None:
        """Write the status with the given fields changed."""
        self._record.update(**values)

    @contextmanager
    def _held(self, timeout: float) -> Iterator[None]:
        lock = Lock(self.path / LOCK)
        try:
            lock.acquire(timeout)
        except BusyError as busy:
            owner = busy.owner or "another process"
            fix = f"wait for it or stop it; if it is gone, delete {busy.path}"
            raise RunFolderError.of("folder", self.path, f"a folder that is not in use (by {owner})", fix) from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hold the folder for this job: log to its file, keep its status, record the final state.

        Of several processes of one job, the first records.

        Raises
        ------
        RunFolderError
            If another process holds it, it belongs to another configuration, or it cannot be written.
        SystemExit
            With the exit code of the signal that interrupted the job.
        """
        with signals.handled(self._record.force_end):
            if (rank := distributed.rank()) > 0:
                with self._recording_errors(rank):
                    yield
                return
            with storage_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                with self._held(HAND_OVER), logged_to(self.path / LOG) as handler:
                    self._check_identity()  # under the lock: another process may have just begun here
                    try:
                        self._write_config()
                        self._record.begin(inputs(self.options) if self.track_inputs else {})
                        yield
                    except BaseException as error:
                        self._record.end(error)
                        text = f"{self._record.status.get('state')}: {traceback.format_exc()}"
                        handler.emit(logging.LogRecord("raptor", logging.ERROR, "", 0, text, None, None))
                        code = signals.exit_code()
                        if isinstance(error, KeyboardInterrupt | SystemExit) and code and not signals.is_requeued():
                            raise SystemExit(code) from error
                        raise

    @contextmanager
    def _recording_errors(self, rank: int) -> Iterator[None]:
        self._check_identity()
        try:
            yield
        except Exception:
            write_text(self.path / f"error-rank{rank}.txt", traceback.format_exc())
            raise

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result, then call the run finished; returns what was written."""
        if distributed.rank() > 0:
            return result
        result = {
            "schema": 1,
            "study": str(self.options.study),
            "name": self.path.name,
            **result,
            "attempts": self._record.status["attempt"],
            "versions": provenance.versions(),
        }
        write_json(self.path / RESULT, result)
        shown = {"steps": "step", "ended_early": "ended_early"}
        self.update(state="finished", **{name: result[key] for key, name in shown.items() if key in result})
        return read_json(self.path / RESULT) or {}
