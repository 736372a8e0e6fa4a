"""What makes two runs the same run, and what a run builds on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from raptor.errors import ConfigError
from raptor.utils.files import read_json, resolve, sha256

STATUS = "status.json"
BUILDS_ON = ("teacher.weights", "teacher.head", "surrogate.phases_file", "task.blocks", "task.backbone", "surrogates")
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
