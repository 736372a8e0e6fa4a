"""Jobs as they were submitted."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from raptor.launching import job as jobs
from raptor.launching.job import JobSpec
from raptor.reporting.options import ReportOptions
from raptor.runs.folder import RunFolder
from raptor.utils.files import write_json
from raptor.utils.locks import Lock, is_held


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    config = OmegaConf.create(
        {"a": math.inf, "b": {2: [7]}, "c": "${d}", "d": 1e-5, "e": None, "f": "no", "g": "1e-3", "h": "null"}
    )
    values: Any = OmegaConf.to_container(config, resolve=True)
    job = JobSpec("train", values, {"commit": None, "diff": "+ä\n"}, grace=3.0, about={"task": "finetune"})
    job.write(tmp_path / "job")
    back = JobSpec.read(tmp_path / "job")
    assert back == job
    assert back.node == OmegaConf.create({**OmegaConf.to_container(config), "c": 1e-5})  # type: ignore[dict-item]


def test_a_job_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("code: {commit: null}\ncommand: train\nconfig: {a: 1}\ngrace: 90.0\n")
    assert JobSpec.read(tmp_path / "job") == JobSpec("train", {"a": 1}, {"commit": None})


@pytest.mark.parametrize(
    ("theirs", "waits"),
    [({"job": "7", "restarts": 0}, True), ({"job": "7", "restarts": 1}, False), ({"job": "8", "restarts": 0}, False)],
)
def test_an_attempt_waits_for_the_former_one_alone(
    theirs: dict[str, Any], *, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SLURM_JOB_ID": "7", "SUBMITIT_EXECUTOR": "slurm", "SLURM_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr(jobs, "PAUSE", 0.01)
    write_json(tmp_path / "status.json", {"state": "running", "slurm": theirs})
    lock = Lock(tmp_path / ".lock")
    lock.acquire()
    ending = threading.Timer(0.3, lock.release)
    ending.start()
    jobs._wait_for_former_attempt(RunFolder(ReportOptions(), OmegaConf.create(), "t", path=tmp_path))
    assert is_held(tmp_path / ".lock") is not waits
    ending.join()
