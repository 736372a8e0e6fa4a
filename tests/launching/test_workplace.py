"""Temporary files of launchers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from raptor.launching.workplace import LOCK, YOUNG, CallFolder, work_folder
from raptor.utils.locks import Lock


def test_files_of_launchers_that_were_killed_are_removed(tmp_path: Path) -> None:
    root = work_folder({"paths": {"runs": str(tmp_path / "runs")}}) / "local"
    assert root.parent.stat().st_mode & 0o777 == 0o700
    killed, at_work, beginning, kept = (root / name for name in ("call-a-1", "call-b-2", "call-c-3", "code"))
    for folder in (killed, at_work, beginning, kept):
        folder.mkdir(parents=True)
        (folder / "job.yaml").touch()
        (folder / LOCK).touch()
    for folder in (killed, at_work, kept):
        os.utime(folder, (0, time.time() - YOUNG - 1))
    with Lock(at_work / LOCK), CallFolder(root) as call:
        assert call.lock.is_file()
        assert {path for path in root.iterdir() if path != call.path} == {at_work, beginning, kept}
    assert not call.path.exists()
