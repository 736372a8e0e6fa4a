"""Reading what a partition comes from: a saved distance matrix, or a ``phases.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from raptor.errors import ConfigError
from raptor.partition.maxcut import Matrix, check_distance


def read_distance(path: Path) -> Matrix:
    """A saved distance matrix.

    Raises
    ------
    ConfigError
        If the file is missing, no plain array, or no distance matrix.
    """
    if not path.is_file():
        raise ConfigError(f"distance={path} does not exist: give a .npy file with a square matrix")
    try:
        return check_distance(np.load(path, allow_pickle=False), f"distance={path}")
    except (OSError, EOFError, TypeError) as error:
        raise ConfigError(f"distance={path} is no .npy file: {error}") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"distance={path} is no plain numeric .npy file: {error}") from error


def read_phases(path: Path, num_layers: int) -> dict[str, Any]:
    """A ``phases.json``, checked against the number of layers.

    Raises
    ------
    ConfigError
        If it is missing, damaged, or of another depth.
    """
    if not path.is_file():
        raise ConfigError(
            f"surrogate.phases_file={path} does not exist: run python -m raptor.phases, or set it to null"
        )
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))
        found, _, _ = phases["num_layers"], phases["solver"], dict(phases["boundaries"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"surrogate.phases_file={path} is no phases.json of raptor.phases ({error})") from error
    if found != num_layers:
        raise ConfigError(f"surrogate.phases_file={path} is of {found} layers, the teacher has {num_layers}")
    return phases
