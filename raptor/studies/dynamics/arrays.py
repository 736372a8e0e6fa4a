"""Named arrays on disk, with what they were made by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raptor.utils.files import atomic_write

MADE_BY = "made_by"


def file_name(name: str) -> str:
    """Turn a name into part of a path: characters but letters, digits, dots and dashes become underscores."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], made_by: str) -> None:
    """Write arrays at once, compressed, with the digest of what they were made by."""

    def save(tmp_path: Path) -> None:
        with tmp_path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{MADE_BY: np.array(made_by)}, **arrays)

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, save)


def read_arrays(path: Path, made_by: str) -> dict[str, NDArray[Any]] | None:
    """Arrays of a file, None where there is none or it was made by something else."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    return arrays if str(arrays.pop(MADE_BY, "")) == made_by else None
