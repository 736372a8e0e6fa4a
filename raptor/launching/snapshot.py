"""The code of a job as it was at submission."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from pathlib import Path

from raptor.utils.files import CONFIGS, PACKAGE


def package_copy(folder: Path) -> Path:
    """Copy the package and its configs to a folder named after what is in them, unless it is there.

    Returns
    -------
    Path
        What to put on ``PYTHONPATH``.
    """
    parts = {"raptor": PACKAGE, "configs": CONFIGS} if CONFIGS.parent != PACKAGE else {"raptor": PACKAGE}
    digest = hashlib.sha256()
    for name, source in parts.items():
        for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{name}/{path.relative_to(source)}".encode() + path.read_bytes())
    copy = folder / digest.hexdigest()[:12]
    if not copy.is_dir():
        part = folder / f".{copy.name}.{platform.node()}.{os.getpid()}"
        for name, source in parts.items():
            shutil.copytree(source, part / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        try:
            part.replace(copy)
        except OSError:  # another call was faster
            shutil.rmtree(part)
    return copy
