"""Errors that a user can mend: each message names the key or file, the value, and the remedy."""

from __future__ import annotations


class RaptorError(Exception):
    """Base of all errors that are shown to the user as one message, without a traceback."""


class ConfigError(RaptorError, ValueError):
    """A configuration value that cannot work, alone or beside the others."""


class ModelFileError(RaptorError):
    """A model folder or weight file that is missing, damaged, foreign or of another shape."""


class RunFolderError(RaptorError):
    """A run folder that is in use, or belongs to another configuration."""
