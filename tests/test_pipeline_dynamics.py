"""The experiments of ``configs/experiment/dynamics`` from teacher to report, on the digits and with few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "trainer.max_steps=2"]
SMALL = ["images=12", "shown=3", "ranks=false", "perturbation.images=0", "jacobian.images=0", "untrained=false"]
GREY = ["data=digits", "teacher.options.img_size=8", "teacher.options.patch_size=2"]


@pytest.mark.slow
def test_dynamics_from_teacher_to_report(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", "experiment=dynamics/fashion_teacher", *GREY, *QUIET)
    call("train", "experiment=dynamics/digits_surrogate", *QUIET)
    call("train", "experiment=dynamics/fashion_surrogate", *GREY, *QUIET)
    call("dynamics", "experiment=dynamics/digits", *SMALL)
    call("dynamics", "experiment=dynamics/fashion", *GREY, *SMALL)
    tiny = ["data=digits", "teacher.pretrained=false", "+teacher.options.embed_dim=24", "+teacher.options.num_heads=2"]
    call("dynamics", "experiment=dynamics/clip", *tiny, "teacher.options.img_size=32", *SMALL)
    call("train", "experiment=dynamics/clip_surrogate", *tiny, *QUIET)
    call("dynamics", "experiment=dynamics/clip_64", *tiny, *SMALL)
    call("report", "experiment=dynamics")

    report = tmp_path / "runs" / "dynamics" / "report"
    values = pd.read_csv(report / "findings.csv")
    assert set(values["run"]) == {"digits", "fashion", "clip", "clip_64"}
    assert set(values.loc[values["run"] == "fashion", "network"]) == {"teacher", "k=3"}
    assert set(values.loc[values["run"] == "clip", "network"]) == {"random weights"}
    assert set(values.loc[values["run"] == "clip_64", "network"]) == {"random weights", "k=3"}
    assert (values["n"] <= 12).all()
    assert "fashion: vit_tiny_patch16_224, 12 images of digits (val)" in (report / "findings.md").read_text()
