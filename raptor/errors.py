"""Errors that a user can mend: each message names the key or file, the value, and the remedy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Made = TypeVar("Made")


class RaptorError(Exception):
    """Base of all errors that are shown to the user as one message, without a traceback."""


class ConfigError(RaptorError, ValueError):
    """A configuration value that cannot work, alone or beside the others."""


class SampleError(ConfigError):
    """One file of a data set that cannot be used; ``data.on_error=skip`` leaves it out."""


class ModelFileError(RaptorError):
    """A model folder or weight file that is missing, damaged, foreign or of another shape."""


class RunFolderError(RaptorError):
    """A run folder that is in use, or belongs to another configuration."""


class LaunchError(RaptorError):
    """Jobs that cannot be started, or that failed."""


class StoreError(RaptorError):
    """A pixel cache or activation store that is missing, incomplete, damaged, or another than asked for."""


def from_node(make: Callable[..., Made], values: Mapping[str, Any], key: str) -> Made:
    """Call ``make`` with a config node, once all of its keys are known.

    Parameters
    ----------
    make
        A class or function with named parameters.
    values
        The node.
    key
        Where the node stands in the configuration.

    Raises
    ------
    ConfigError
        If the node has a key that ``make`` does not take.
    """
    known = inspect.signature(make).parameters
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown key '{key}.{name}': {key} has {', '.join(known)}")
    return make(**values)
