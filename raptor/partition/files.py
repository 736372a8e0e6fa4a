"""Reading what a partition comes from: a saved distance matrix, or a ``phases.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from raptor.errors import ConfigError
from raptor.partition.maxcut import Matrix, check_distance
from raptor.partition.phases import check_boundaries


def read_distance(path: Path) -> Matrix:
    """Read a saved distance matrix, and check it.

    Raises
    ------
    ConfigError
        If the file is missing, no plain array, or no distance matrix.
    """
    if not path.is_file():
        raise ConfigError.of("distance", path, "a .npy file that exists", "give a .npy file with a square matrix")
    try:
        return check_distance(np.load(path, allow_pickle=False), str(path))
    except (OSError, EOFError, TypeError) as error:
        raise ConfigError.of("distance", path, f"a .npy file ({error})", "save it by numpy.save") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError.of(
            "distance", path, f"a plain numeric .npy file ({error})", "save it by numpy.save"
        ) from error


def read_phases(path: Path, num_layers: int) -> dict[str, Any]:
    """Read a ``phases.json``, checked against the number of layers.

    Raises
    ------
    ConfigError
        If it is missing, damaged, of another depth, or holds boundaries that do not make the k they stand under.
    """
    if not path.is_file():
        fix = "run python -m raptor.phases, or set it to null"
        raise ConfigError.of("surrogate.phases_file", path, "a file that exists", fix)
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))
        found, _, boundaries = phases["num_layers"], phases["solver"], dict(phases["boundaries"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        expected = f"a phases.json of raptor.phases ({type(error).__name__}: {error})"
        raise ConfigError.of("surrogate.phases_file", path, expected, "run python -m raptor.phases") from error
    if found != num_layers:
        expected = f"phases of the teacher's {num_layers} layers (it is of {found})"
        raise ConfigError.of("surrogate.phases_file", path, expected, "run python -m raptor.phases on this teacher")
    for k, given in boundaries.items():
        key = f"{path}: boundaries.{k}"
        if not isinstance(given, list):
            raise ConfigError.of(key, given, "a list of layers", "run python -m raptor.phases again")
        if str(len(check_boundaries(given, num_layers, key)) + 1) != k:
            fix = "run python -m raptor.phases again"
            raise ConfigError.of(key, given, f"boundaries that make {k} phases (they make {len(given) + 1})", fix)
    return phases
