"""Jobs as they were submitted."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import OmegaConf

from raptor.launching.job import FrozenJob


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    config = OmegaConf.create(
        {"a": math.inf, "b": {2: [7]}, "c": "${d}", "d": 1e-5, "e": None, "f": "no", "g": "1e-3", "h": "null"}
    )
    job = FrozenJob.of("train", config, {"commit": None, "diff": "+ä\n"}, grace=3.0)
    job.write(tmp_path / "job")
    back = FrozenJob.read(tmp_path / "job")
    assert back == job
    assert back.node == OmegaConf.create({**OmegaConf.to_container(config), "c": 1e-5})  # type: ignore[dict-item]
