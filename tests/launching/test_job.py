"""Jobs as they were submitted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from raptor.launching.job import JobSpec


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
