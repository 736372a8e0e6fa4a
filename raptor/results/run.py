"""The run folder: one job's config, status, log, metrics, checkpoint, model and result.

Its path depends on the configuration alone, so that a second call finds it: finished runs say so, interrupted
ones continue.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, ListConfig, OmegaConf

import raptor
from raptor.errors import ConfigError, RunFolderError
from raptor.files import read_json, resolve, sha256, write_json, write_text

log = logging.getLogger(__name__)

STATUS, RESULT, CONFIG, LOG = "status.json", "result.json", "config.yaml", "log.txt"
BUILDS_ON = ("teacher.weights", "teacher.head", "surrogate.phases_file", "task.blocks", "task.backbone")
# what may change between two calls of one run: where and how it reports, not what it computes
NOT_IDENTITY = (
    "paths",
    "logger",
    "callbacks",
    "name",
    "study",
    "grid",
    "data.num_workers",
    "data.pixels",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)


def identity(config: DictConfig, relative: bool = True) -> dict[str, Any]:
    """What makes two runs the same run: the resolved config without :data:`NOT_IDENTITY`, as flat keys.

    Unless ``relative`` is false, paths below ``paths.runs`` and ``paths.data`` are written relative to them, so
    that a moved tree is still the same tree.
    """
    roots = {str(key): str(value) for key, value in config.paths.items()} if relative else {}
    roots = dict(sorted(roots.items(), key=lambda item: len(item[1]), reverse=True))  # the innermost one names a path
    values = OmegaConf.to_container(config, resolve=True)
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if prefix in NOT_IDENTITY:
            return
        if isinstance(node, Mapping) and node:
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else str(key), value)
            return
        if isinstance(node, str):
            for key, root in roots.items():
                if f"{node}/".startswith(f"{root}/"):
                    node = f"<paths.{key}>{node[len(root) :]}"
        flat[prefix] = node

    visit("", values)
    return flat


def inputs(config: DictConfig) -> dict[str, str]:
    """Digest of every model folder and file that a configuration names, by key."""
    found = {}
    for key, value in identity(config, relative=False).items():
        for i, name in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(name, str) or not name:
                continue
            path, label = resolve(name), f"{key}[{i}]" if isinstance(value, list) else key
            if (path / "model.json").is_file():
                found[label] = str((read_json(path / "model.json") or {}).get("sha256"))
            elif (path / "manifest.json").is_file():  # of a store: it holds a checksum of every shard
                found[label] = sha256(path / "manifest.json")
            elif path.is_file():
                found[label] = sha256(path)
    return found


def check_inputs(config: DictConfig) -> None:
    """See that the runs that a job builds on are finished, before anything is loaded.

    Raises
    ------
    ConfigError
        Naming each that is not, its state, and the command that makes it (``grid.after``), where one is known.
    """
    missing = []
    for key in BUILDS_ON:
        value = OmegaConf.select(config, key)  # None where a command has no such key
        for name in value if isinstance(value, ListConfig) else [value]:
            path = resolve(name or "package:")
            below = f"{name}/".startswith(f"{config.paths.runs}/")
            if below and not (path.is_file() or (path / "model.json").is_file()):
                folder = path if path.suffix == "" else path.parent
                state = (read_json(folder / STATUS) or {}).get("state", "does not exist")
                missing.append(f"{key}={name} ({state})")
    if missing:
        after = OmegaConf.select(config, "grid.after")
        remedy = f"run {after}" if after else "finish the runs that make them"
        raise ConfigError(f"this job builds on what is not finished: {', '.join(missing)}; {remedy} first")


def run_path(config: DictConfig, default_name: str) -> Path:
    """``<paths.runs>/<study>/<name>``; without a name, ``default_name`` and a digest of the identity."""
    name = config.name
    if name is None:
        digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True, default=str).encode()).hexdigest()
        name = f"{default_name}-{digest[:8]}"
    return Path(config.paths.runs) / str(config.study) / str(name)


class RunFolder:
    """One job's folder.

    Parameters
    ----------
    config
        Composed configuration of the job.
    default_name
        Beginning of the folder's name where ``name`` is null.
    track_inputs
        Whether a run counts as another one when the models or files that it builds on have changed.
    """

    def __init__(self, config: DictConfig, default_name: str, track_inputs: bool = True) -> None:
        self.config, self.track_inputs = config, track_inputs
        self.path = run_path(config, default_name)
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
        path = self.path / CONFIG
        made = ("checkpoints", RESULT, "model.json")  # a run that failed before it made anything binds nobody
        if not path.is_file() or not any((self.path / name).exists() for name in made):
            return
        ours, theirs = identity(self.config), identity(OmegaConf.load(path))  # type: ignore[arg-type]
        differing = [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]
        if differing:
            shown = "; ".join(f"{key}: {theirs.get(key)} there, {ours.get(key)} now" for key in differing[:4])
            raise RunFolderError(
                f"{self.path} holds a run of another configuration ({len(differing)} keys differ: {shown}). "
                "Choose another name=..., or delete that folder"
            )
        before = (read_json(self.path / STATUS) or {}).get("inputs", {})
        now = inputs(self.config) if self.track_inputs else before
        for key in before.keys() & now.keys():
            if before[key] != now[key]:
                raise RunFolderError(
                    f"{self.path} was made from another {key}={OmegaConf.select(self.config, key)}, which has changed "
                    "since: delete that folder to run it anew, or choose another name=..."
                )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hold the folder for this job: log to its file, keep its status, tell the truth about how it ended.

        Raises
        ------
        RunFolderError
            If another process holds it, or it belongs to another configuration.
        """
        self._check_identity()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(f"{self.path} is in use by another process: wait for it, or stop it") from None
        handler = logging.FileHandler(self.path / LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        earlier = read_json(self.path / STATUS) or {}
        self._status = {
            "state": "running",
            "attempt": int(earlier.get("attempt", 0)) + 1,
            "started": _now(),
            "host": platform.node(),
            "pid": os.getpid(),
            "inputs": inputs(self.config) if self.track_inputs else {},
        }
        try:
            write_text(self.path / CONFIG, OmegaConf.to_yaml(self.config, resolve=True))
            self.update()
            yield
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            self.update(state=state, error=f"{type(error).__name__}: {error}")
            handler.emit(
                logging.LogRecord("raptor", logging.ERROR, "", 0, f"{state}: {traceback.format_exc()}", None, None)
            )
            raise
        finally:
            root.removeHandler(handler)
            handler.close()
            lock.release()

    def update(self, **values: Any) -> None:
        """Write the status with the given fields changed."""
        self._status |= {**values, "updated": _now()}
        write_json(self.path / STATUS, self._status)

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write the result, then call the run finished; returns what was written."""
        result = {
            "schema": 1,
            "study": str(self.config.study),
            "name": self.path.name,
            **result,
            "attempts": self._status["attempt"],
            "versions": versions(),
        }
        write_json(self.path / RESULT, result)
        self.update(state="finished", **({"step": result["steps"]} if "steps" in result else {}))
        return read_json(self.path / RESULT) or {}


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    packages = ("torch", "timm", "pytorch-lightning", "torchmetrics", "hydra-core")
    return {
        "python": platform.python_version(),
        "raptor": raptor.__version__,
        **{p: version(p) for p in packages},
    }


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
