"""One message for every error that a user can repair."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from raptor.errors import RaptorError
from raptor.runs.migration import RENAMED
from raptor.utils.files import CONFIGS
from raptor.utils.names import unknown_key


def explain(error: BaseException, config_name: str, overrides: Sequence[str]) -> str | None:
    """Return one message for an error that the user can repair, None for any other.

    Parameters
    ----------
    error
        What ended the command.
    config_name
        Root configuration, without ``.yaml``.
    overrides
        Those of the command line.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, RaptorError):
            return str(cause)
    if isinstance(error, OverrideParseException):
        return str(_unquoted(error.override))
    if isinstance(error, HydraException) and (unknown := _unknown_override(config_name, overrides)):
        return str(unknown)
    if isinstance(error, HydraException) and (deleted := re.match(r"Could not delete.*?'(.+?)'", str(error))):
        key, reason = deleted[1].removeprefix("~"), " ".join(str(error).split())  # to Hydra, a null is not there
        return str(RaptorError.of(f"~{key}", None, f"what can be deleted ({reason})", f"leave out ~{key}"))
    head, _, rest = str(error).partition("Could not override '")
    if rest and not head:  # of a job of a sweep, which this command line does not name
        return str(unknown_key(rest.partition("'")[0], "...", []))
    if isinstance(error, InterpolationKeyError) and (unset := re.search(r"Interpolation key '(.+?)'", str(error))):
        key, expected = str(error.full_key), f"{unset[1]}, which it stands for; nothing sets that"
        fix = f"choose an option of {unset[1].partition('.')[0]}, or set {key}"
        return str(RaptorError.of(key, f"${{{unset[1]}}}", expected, fix))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return "\n".join(dict.fromkeys(str(c) for c in causes))
    return None


def _unquoted(override: str) -> RaptorError:
    """Explain an override that Hydra's grammar does not read: most often a value that needs quotes."""
    key, _, value = override.partition("=")
    fix = f"quote the value, twice for the shell: '{key}=\"{value}\"'"
    if "~" in value:
        fix += "; quotes keep ~ as it is, so write $HOME in its place"
    return RaptorError.of(key or override, value, "a value that Hydra's grammar reads", fix)


def _unknown_override(config_name: str, overrides: Sequence[str]) -> RaptorError | None:
    """Find the first override of a key that the composed configuration does not have."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        groups = [o for o in parsed if (CONFIGS / o.key_or_group).is_dir() and not o.is_sweep_override()]
        try:
            config = hydra.compose(config_name, [str(o.input_line) for o in groups], return_hydra_config=True)
        except HydraException:  # a group's option that does not exist: Hydra's own message lists those that do
            return None
    values: Any = OmegaConf.to_container(config)
    launcher = {"hydra": {"launcher": values.pop("hydra")["launcher"]}}
    known = [*_keys(launcher), *_keys(values)]
    for override in parsed:
        name = override.key_or_group
        closed = not name.startswith("hydra.") or name.startswith("hydra.launcher.")
        if closed and not override.is_add() and override not in groups and name not in known:
            return unknown_key(name, override.value(), known, RENAMED.get(name, ""), addable=_open_parent(config, name))
    return None


def _open_parent(config: Any, name: str) -> bool:
    """Whether the node of a key passes its keys on to another library's function, so that ``+`` adds one."""
    parent = name.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else None
    if node is None:
        return False
    target = OmegaConf.select(config, f"{parent}._target_")
    return parent == "teacher.options" or (target is not None and not str(target).startswith("raptor."))


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
