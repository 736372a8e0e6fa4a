"""What a run records of itself, and who may read it."""

from __future__ import annotations

import os
from pathlib import Path

from raptor.runs.record import DIFF, Record


def test_changes_that_were_not_committed_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        (tmp_path / f".{DIFF}.tmp").touch(0o666)  # of an attempt that was killed as it wrote
        record = Record(tmp_path, {}, has_result=True)
        record.code = {"commit": "0" * 40, "dirty": True, "untracked": ["configs/secret.yaml"], "diff": "+secret\n"}
        record.begin({})
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {"status.json", "provenance.json", DIFF}
    assert (tmp_path / DIFF).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o666
    assert "secret\n" not in (tmp_path / "provenance.json").read_text()
