"""Write files atomically, so that a reader never sees half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError

PACKAGE = Path(__file__).parent.parent
# in an installed wheel the configs lie inside the package, in a checkout beside it
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
ASSETS = PACKAGE / "assets"
PACKAGED = "package:"
SMALL = 2**16  # bytes; libraries write in parts, and fail before the last block is taken


def resolve(name: str | Path) -> Path:
    """Return the path of a file or folder; ``package:NAME`` ships with the package, ``~`` is the home folder."""
    text = str(name)
    if text.startswith(PACKAGED):
        return ASSETS / text[len(PACKAGED) :]
    return Path(os.path.expanduser(text))  # noqa: PTH111 (which leaves the home of nobody as it is)


def user_path(key: str, value: str | Path) -> Path:
    """Return a path that a user gave, with ``~`` replaced by the home folder.

    Parameters
    ----------
    key
        Configuration key of the value.
    value
        The path.

    Raises
    ------
    ConfigError
        If it names the home folder of a user who does not exist.
    """
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ConfigError.of(key, value, f"a path ({error})", "write the folder without ~") from error


def atomic_write(path: Path, write: Callable[[Path], object], *, private: bool = False) -> None:
    """Let ``write`` fill a file beside ``path``, flush it to disk, then rename it into place.

    Parameters
    ----------
    path
        Where the finished file is to stand.
    write
        Called with the path of the file to fill.
    private
        Whether other users may not read it.

    Raises
    ------
    OSError
        With ``path`` as its file name, also where ``write`` reports a full disk in another way.
    """
    tmp_path = path.with_name(f".{path.name}.tmp")
    try:
        if private:
            tmp_path.unlink(missing_ok=True)
            os.close(os.open(tmp_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        write(tmp_path)
        sync(tmp_path)
        mask = os.umask(0)
        os.umask(mask)
        tmp_path.chmod(0o600 if private else 0o666 & ~mask)  # safetensors makes its files unreadable to others
        tmp_path.replace(path)
    except Exception as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        elif code := _system_error(error, path.parent):
            raise OSError(code, os.strerror(code), str(path)) from error
        raise
    finally:
        tmp_path.unlink(missing_ok=True)


def _system_error(error: Exception, folder: Path) -> int | None:
    """Return the error number behind an error of safetensors or torch; None if there is none."""
    if named := re.search(r"\(os error (\d+)\)", str(error)):
        return int(named[1])
    found = os.statvfs(folder)
    full = found.f_bavail * found.f_frsize < SMALL or (found.f_files > 0 and found.f_favail == 0)
    return errno.ENOSPC if full else None


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if there is no whole one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file in UTF-8 at once; ``private`` as in :func:`atomic_write`."""
    atomic_write(path, lambda tmp_path: tmp_path.write_text(text, encoding="utf-8"), private=private)


def write_json(path: Path, values: Any) -> None:
    """Write JSON at once; NaN and infinities become null, as JSON has no such numbers."""
    write_text(path, json.dumps(_plain(values), indent=1, allow_nan=False) + "\n")


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
