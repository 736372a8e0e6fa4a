"""The code of a job as it was at submission."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from raptor.utils.files import PACKAGE

LEFT_OUT = ("__pycache__", "configs")  # jobs carry their configuration, so that a wheel's configs are not needed


def copy_package(folder: Path, scratch: Path) -> Path:
    """Copy the package to a folder named after its content, unless it is there.

    Parameters
    ----------
    folder
        Where the copies of all calls stand.
    scratch
        Folder of this call, on the same file system.

    Returns
    -------
    Path
        What to put on ``PYTHONPATH``.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.is_file()):
        relative = path.relative_to(PACKAGE)
        if not set(LEFT_OUT) & set(relative.parts):
            digest.update(f"{PACKAGE.name}/{relative}".encode() + path.read_bytes())
    copy = folder / digest.hexdigest()[:12]
    if not copy.is_dir():
        part = scratch / copy.name
        shutil.copytree(PACKAGE, part / PACKAGE.name, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            part.replace(copy)
        except OSError:  # another call was faster
            shutil.rmtree(part)
            if not copy.is_dir():
                raise
    return copy
