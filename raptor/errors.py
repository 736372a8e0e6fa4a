"""Errors that a user can repair: each message names the key or file, the value, what is expected and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


def show(value: Any) -> str:
    """Format a value as it is written on the command line: ``null``, ``true``, ``[7,10]``, text as it is.

    Text that a terminal would not print as it is, such as a line break, is escaped, so that a message is one line.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    text = str(value)
    return text if text.isprintable() else repr(text)


class RaptorError(Exception):
    """Base of all errors that are shown to the user as one message, without a traceback."""

    @classmethod
    def of(cls, key: str, value: Any, expected: str, fix: str) -> Self:
        """Build an error in the one shape of all messages, ``key=value: expected X. Fix: Y.``.

        Parameters
        ----------
        key
            Full name of a configuration key, or what the value is called elsewhere.
        value
            The value that cannot be used, written as on a command line.
        expected
            What would be valid, without a full stop.
        fix
            What to do, without a full stop.
        """
        return cls(f"{key}={show(value)}: expected {expected}. Fix: {fix}.")


class ConfigError(RaptorError, ValueError):
    """A configuration value that cannot work, alone or beside the others."""


class SampleError(ConfigError):
    """One file of a data set that cannot be used; ``data.on_error=skip`` leaves it out."""


class ModelFileError(RaptorError):
    """A model folder or weight file that is missing, damaged, foreign or of another shape."""


class NonFiniteError(RaptorError):
    """A loss or a metric that is NaN or infinite: a diverged training, or nothing to measure."""


class RunFolderError(RaptorError):
    """A run folder that is in use, or belongs to another configuration."""


class LaunchError(RaptorError):
    """Jobs that cannot be started, or that failed."""


class Unfinished(RaptorError):
    """A training that ended before its last step by a limit of the user's; the same command continues it."""


class StoreError(RaptorError):
    """A pixel cache or activation store that is missing, incomplete, damaged, or another than asked for."""
