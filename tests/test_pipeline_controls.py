"""The study of controls on tiny trainings, from the methods to the report, and the grid of its stages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from raptor.cli import sweeps
from raptor.studies.controls.rows import METHODS
from raptor.utils.files import CONFIGS

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "seed=0"]
SMALL = [*QUIET, "surrogate.images=64", "task.floor_images=64", "surrogate.k=2"]
METHODS_RUN = {"experiment=controls/trained": "auto,untied", "experiment=controls/closed": "truncated"}
PROBES = ["experiment=controls/probes", "experiment=controls/probe_teacher", "experiment=controls/probe_untrained"]


@pytest.mark.slow
def test_the_study_from_methods_to_report(call: Callable[..., None], tmp_path: Path) -> None:
    for experiment, choices in METHODS_RUN.items():
        steps = [] if "closed" in experiment else ["trainer.max_steps=2"]
        call("train", "-m", experiment, f"surrogate={choices}", *SMALL, *steps)
    chosen = ["grid.method=tied,untied,truncated", "surrogate.k=2"]
    for probe in PROBES:
        call("train", "-m", probe, *QUIET, "trainer.max_steps=2", *(chosen if probe == PROBES[0] else []))
    call("report", "experiment=controls")
    report = tmp_path / "runs" / "controls" / "report"
    found = json.loads((report / "controls.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["tied", "untied", "truncated"]
    assert [row["images"] for row in found["rows"]] == [64, 64, 0]
    assert all(value is not None for row in found["rows"] for value in row.values())
    assert {"teacher", "untrained"} == set(found["references"])
    assert len(found["floors"]) == 4
    assert found["rows"][2]["flops"] < found["rows"][0]["flops"]
    assert (report / "figures" / "controls_k2.pdf").is_file()
    assert "data:image/png;base64," in (report / "report.html").read_text()


def test_the_grid_has_every_method_and_probes_find_their_runs() -> None:
    (line,) = [job.config for job in sweeps.jobs("reproduce", ["experiment=controls"])]
    jobs = []
    for stage in line.stages:
        name, _, *overrides = shlex.split(stage)
        jobs += [job.config for job in sweeps.jobs(name, [*overrides, "seed=0"])]
    fitted = {job.name: job for job in jobs if job.task.name == "finetune"}
    assert {job.surrogate.label for job in fitted.values()} == set(METHODS)
    assert len(fitted) == 2 * len(METHODS)
    trained = [job for job in fitted.values() if job.trainer.max_steps]
    assert len({(job.trainer.max_steps, job.data.batch_size, str(job.task.loss)) for job in trained}) == 1
    backbones = {Path(job.task.backbone).name for job in jobs if job.task.name == "linear_probe" and job.task.backbone}
    assert backbones == {name for name in fitted if not name.startswith("interpolated")}  # whose end is the teacher's


def test_every_rival_has_a_file_that_says_what_it_is() -> None:
    for path in (CONFIGS / "surrogate").glob("*.yaml"):
        text = path.read_text()
        if "label:" in text and path.stem != "auto":
            assert path.stem in METHODS
            assert text.startswith("# ")
