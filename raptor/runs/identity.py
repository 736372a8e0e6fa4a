"""What makes two runs the same run, and what a run builds on.

The identity of a run is what it computes: the value of every option that its class declares to change the result, under
the option's name. A chosen node stands by the name of what was chosen, never by its import path. Files of runs keep the
identity with its version; :mod:`raptor.runs.migration` reads older ones.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from typing import Any

from raptor.errors import ConfigError
from raptor.runs.options import RunOptions
from raptor.runs.status import STATUS
from raptor.utils.files import read_json, resolve, sha256
from raptor.utils.options import Choice, is_options, keys
from raptor.utils.targets import Foreign, name_targets

BUILDS_ON = ("teacher.weights", "teacher.head", "surrogate.phases_file", "task.blocks", "task.backbone", "surrogates")
# callbacks from elsewhere that only watch; any other counts as changing the result
WATCHERS = {
    f"pytorch_lightning:{name}"
    for name in (
        "DeviceStatsMonitor",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "TQDMProgressBar",
        "ThroughputMonitor",
    )
}
Flat = dict[str, tuple[Any, Any]]


def identity(node: Any, paths: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return what a run computes: a flat mapping of option names to values.

    Parameters
    ----------
    node
        Typed root of the configuration.
    paths
        Roots by name; values below one are written relative to it, so that a moved tree is the same tree.
    """
    return {key: value for key, (value, _) in flatten(node, paths).items()}


def flatten(node: Any, paths: Mapping[str, str] | None = None) -> Flat:
    """Return value and default of every option that changes the result, by its full name."""
    # the innermost root names a path
    roots = sorted((paths or {}).items(), key=lambda item: len(item[1]), reverse=True)
    return {key: (_relative(value, roots), default) for key, value, default in _visit(node, "")}


def _visit(node: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(node, Foreign):
        defaults = _defaults(node.found)
        for name, value in node.options.items():
            full = f"{prefix}.{name}"
            yield from _leaves(full, name_targets(value, full), defaults.get(name, MISSING))
        return
    for key in keys(type(node)):
        if not key.identity:
            continue
        name = f"{prefix}.{key.name}" if prefix else key.name
        yield from _value(name, getattr(node, key.name), key.default)


def _value(name: str, value: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, dict) and any(isinstance(part, Choice) for part in value.values()):
        yield from _parts(name, value)
    elif type(value) is not dict and (isinstance(value, Choice) or is_options(type(value))):
        if isinstance(value, Choice):
            yield name, choice_name(value), choice_name(default) if isinstance(default, Choice) else default
        yield from _visit(value, name)
    else:
        yield from _leaves(name, value, default)


def _parts(name: str, parts: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Parts of a mapping stand by what they are, not by their keys; those that only watch are left out."""
    counts: dict[str, int] = {}
    for part in parts.values():
        if part is None or changes_nothing(part):
            continue
        kind = choice_name(part)
        counts[kind] = counts.get(kind, 0) + 1
        full = f"{name}.{kind}" + (f"#{counts[kind]}" if counts[kind] > 1 else "")
        yield full, True, False
        yield from _visit(part, full)


def _leaves(name: str, value: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    if is_options(type(value)):
        yield from _visit(value, name)
    elif isinstance(value, Mapping) and value:
        for key, part in value.items():
            known = default.get(key, MISSING) if isinstance(default, Mapping) else MISSING
            yield from _leaves(f"{name}.{key}", part, known)
    elif not isinstance(value, Mapping):
        yield name, list(value) if isinstance(value, tuple) else value, default


def _defaults(found: Any) -> dict[str, Any]:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def choice_name(node: Any) -> str:
    """Return what an identity calls a chosen node."""
    if isinstance(node, Foreign):
        return node.identity_name
    return node.identity_name or type(node).__name__


def changes_nothing(node: Any) -> bool:
    """Whether a callback only watches."""
    if isinstance(node, Foreign):
        return node.identity_name in WATCHERS
    return bool(getattr(node, "watches", False))


def _relative(value: Any, roots: list[tuple[str, str]]) -> Any:
    if isinstance(value, list):
        return [_relative(part, roots) for part in value]
    if isinstance(value, str):
        for key, root in roots:
            if f"{value}/".startswith(f"{root}/"):
                return f"<paths.{key}>{value[len(root) :]}"
    return value


def digest(flat: Flat) -> str:
    """Return 64 hexadecimal digits of what differs from the defaults, so that a new option does not rename old runs."""
    chosen = {key: value for key, (value, default) in flat.items() if value != default}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()


def differences(ours: Flat, theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare a run's identity with a recorded one.

    A key that the record lacks was written before the option existed: its value was the default.

    Returns
    -------
    dict
        By key, the recorded value and ours.
    """
    found = {}
    for key in sorted(ours.keys() | theirs.keys()):
        value, default = ours.get(key, (None, None))
        before = theirs.get(key, None if default is MISSING else default)
        if before != value:
            found[key] = (before, value)
    return found


def inputs(node: Any) -> dict[str, str]:
    """Return the digest of every model folder and file that a configuration names, by key."""
    found = {}
    for key, value in identity(node).items():
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


def check_inputs(options: RunOptions) -> None:
    """Check that the runs that a job builds on are finished, before anything is loaded.

    Raises
    ------
    ConfigError
        Naming each that is not, its state, and the command that makes it (``grid.after``), where one is known.
    """
    missing = []
    values = identity(options)
    for key in BUILDS_ON:
        value = values.get(key)  # None where a command has no such key
        for name in value if isinstance(value, list) else [value]:
            path = resolve(name or "package:")
            below = f"{name}/".startswith(f"{options.paths.runs}/")
            if below and not (path.is_file() or (path / "model.json").is_file()):
                folder = path if path.suffix == "" else path.parent
                state = (read_json(folder / STATUS) or {}).get("state", "does not exist")
                missing.append((key, name, state))
    if missing:
        key, name, state = missing[0]
        others = "".join(f", {key}={name} ({state})" for key, name, state in missing[1:])
        after = options.grid.get("after")
        fix = f"run {after} first" if after else "finish the runs that make it first"
        raise ConfigError.of(key, name, f"a finished run (it is: {state}){others}", fix)
