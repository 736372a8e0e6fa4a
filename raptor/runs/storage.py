"""Run folders that cannot be written: full disks, foreign or read-only folders, files in the way."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raptor.errors import RunFolderError

FULL = (errno.ENOSPC, errno.EDQUOT)
FIXES = {
    **dict.fromkeys(FULL, "free some space, or set paths.runs to another disk; the same command continues"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or set paths.runs to a folder of your own"
    ),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        "move what is in the way, or choose another study or name",
    ),
    errno.ENOENT: "run the same command again: the folder was removed while the job ran",
    errno.ENAMETOOLONG: "choose a shorter study or name",
    **dict.fromkeys((errno.EIO, errno.ESTALE), "check the file system; the same command continues"),
}


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the file system in a run folder into one message with the path and a remedy.

    Parameters
    ----------
    folder
        The run folder; a full disk counts wherever it is.

    Raises
    ------
    RunFolderError
        Naming the file and the reason.
    """
    try:
        yield
    except OSError as error:
        message = explain(error, folder)
        if message is None:
            raise
        raise message from error


def explain(error: OSError, folder: Path) -> RunFolderError | None:
    """Return the message for an error of the file system in a run folder, None for any other error."""
    if error.errno not in FIXES:
        return None
    path = folder if error.filename is None else Path(os.fsdecode(error.filename))
    related = path.absolute() in (folder.absolute(), *folder.absolute().parents, *_below(path, folder))
    if not related and error.errno not in FULL:
        return None
    expected = f"a folder that can be written ({error.strerror}: {path})"
    return RunFolderError.of("folder", folder, expected, FIXES[error.errno])


def _below(path: Path, folder: Path) -> tuple[Path, ...]:
    return (path.absolute(),) if path.absolute().is_relative_to(folder.absolute()) else ()


def overwrite(path: Path, values: Mapping[str, Any]) -> bool:
    """Write JSON over a file in place, which a full disk allows within a block.

    Returns
    -------
    bool
        Whether it succeeded.
    """
    content = json.dumps(values, default=str).encode()
    try:
        file = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    try:
        whole = os.pwrite(file, content, 0) == len(content)
        os.ftruncate(file, len(content))
    except OSError:
        return False
    finally:
        os.close(file)
    return whole
