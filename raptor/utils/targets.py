"""Classes and functions that a configuration names by ``_target_``, of this package and of users."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raptor.errors import ConfigError
from raptor.utils.imports import imported_files

PACKAGE = __name__.partition(".")[0]
TARGET = "_target_"
RESERVED = (TARGET, "_partial_", "_convert_", "_recursive_", "_args_")


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A node whose ``_target_`` is no options class: a user's own part, or one of torch, timm or Lightning.

    Parameters
    ----------
    target
        Dotted name, as the configuration has it.
    values
        The node, with ``_target_``.
    found
        What the name stands for.
    """

    target: str
    values: dict[str, Any]
    found: Any

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target with the node's keys and the given arguments; with ``_partial_``, return a partial."""
        from hydra.utils import instantiate

        return instantiate(self.values, *args, **kwargs, _convert_="all")

    @property
    def options(self) -> dict[str, Any]:
        """Keys of the node that are arguments of the target."""
        return {name: value for name, value in self.values.items() if name not in RESERVED}

    @property
    def identity_name(self) -> str:
        """Name in a run's identity; that of a user's own code carries a digest of its file."""
        return target_name(self.found)


def locate(target: Any, key: str) -> Any:
    """Import what a dotted name stands for.

    Raises
    ------
    ConfigError
        If there is no such module or attribute, with the reason.
    """
    name = f"{key}._target_"
    fix = "correct the dotted name; a module of your own must be importable (PYTHONPATH, or pip install -e)"
    if not isinstance(target, str) or "." not in target:
        raise ConfigError.of(name, target, "the dotted name of a class or function", fix)
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                continue
            raise ConfigError.of(name, target, f"a module that can be imported ({error})", fix) from error
        try:
            for attribute in parts[split:]:
                found = getattr(found, attribute)
        except AttributeError as error:
            raise ConfigError.of(name, target, f"a name that exists ({error})", fix) from None
        if not callable(found):
            raise ConfigError.of(name, target, "a class or function", fix)
        return found
    raise ConfigError.of(name, target, f"a module that can be imported (no module named {parts[0]!r})", fix)


def check_signature(found: Any, values: Mapping[str, Any], key: str) -> None:
    """Refuse keys that a class or function does not take.

    Raises
    ------
    ConfigError
        Naming the key and what the target takes.
    """
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [p.name for p in parameters]
    for name in values:
        if name not in names and name not in RESERVED:
            takes = ", ".join(names) or "nothing"
            expected = f"an argument of {values['_target_']} ({takes})"
            raise ConfigError.of(f"{key}.{name}", values[name], expected, "correct or remove it")


def target_name(found: Any) -> str:
    """Name of a class or function that does not change when its module moves within its package.

    The versions of installed packages identify their code. A user's own module is named with a digest of its file and
    of the user's files that it imports, so that edited code is other code.
    """
    name, module = getattr(found, "__qualname__", str(found)), getattr(found, "__module__", "")
    package = module.partition(".")[0]
    if package == PACKAGE:
        return str(name)
    files = imported_files(module)
    if not files:
        return f"{package}:{name}"
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for _, path in sorted(files.items())]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"{package}:{name}@{digest[:12]}"


def name_targets(value: Any, key: str) -> Any:
    """Replace the dotted names of a user's own code within a node by names with a digest.

    Parameters
    ----------
    value
        Value of a node's key, with nodes within it.
    key
        Full name of that key, for errors.
    """
    if isinstance(value, Mapping):
        named = {name: name_targets(part, f"{key}.{name}") for name, part in value.items()}
        if TARGET in value and "@" in (name := target_name(locate(value[TARGET], key))):
            named[TARGET] = name
        return named
    return [name_targets(part, f"{key}.{i}") for i, part in enumerate(value)] if isinstance(value, list) else value
