"""Files of launchers, beside the runs: logs and copies of the code to keep, everything else for one call."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

from raptor.utils.locks import Lock, is_held

LAUNCHED = ".launched"
LOCK = "lock"
YOUNG = 60.0  # seconds within which a call may have made its folder and not yet locked it


def work_folder(config: dict[str, Any]) -> Path:
    """Return the folder for what launching needs, ``<paths.runs>/.launched``; make it if it is missing.

    Other users may not read it: jobs carry changes of the code that were not committed.

    Parameters
    ----------
    config
        Configuration of a job.
    """
    folder = Path(config["paths"]["runs"]) / LAUNCHED
    if folder.exists() and folder.stat().st_uid != os.geteuid():  # runs that several people share
        folder = folder.with_name(f"{LAUNCHED}-{os.geteuid()}")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


class CallFolder:
    """Temporary files of one call of a launcher, under a lock that shows whether the call still runs.

    Parameters
    ----------
    root
        Where the folders of all calls stand; those of calls that were killed are removed.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / f"call-{platform.node()}-{os.getpid()}"
        self._lock = Lock(self.path / LOCK)

    def __enter__(self) -> CallFolder:
        for folder in self.root.glob("call-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > YOUNG and is_held(folder / LOCK) is False:
                    shutil.rmtree(folder, ignore_errors=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def lock(self) -> Path:
        """File that is locked while the call runs."""
        return self.path / LOCK
