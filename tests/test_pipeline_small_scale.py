"""The small-scale study on tiny trainings, from teachers to report, and the grids of its larger forms."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import hydra
import pandas as pd
import pytest

import raptor
from raptor.cli import sweeps
from raptor.models.tied import PartitionEnsemble
from raptor.utils.files import CONFIGS

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "data.eval_batch_size=60"]
STAGES = ["experiment=small_scale/teachers", "experiment=small_scale/untrained", "experiment=small_scale/fits"]
LAST = "experiment=small_scale/checkpoints"
GRIDS = {  # jobs of each stage with one seed
    "experiment=small_scale": [4, 1, 4, 3],
    "experiment=small_scale_fashion": [4, 1, 4, 3],
    "experiment=small_scale_full": [10, 1, 10, 10],
    "experiment=small_scale_unscaled": [4, 4],
}


@pytest.mark.slow
def test_the_study_from_teachers_to_report(call: Callable[..., None], tmp_path: Path) -> None:
    teachers, untrained, fits = STAGES
    short = [*QUIET, "trainer.max_steps=3", "trainer.limit_val_batches=2", "seed=0"]
    small = [*short, "task.swaps=2", "surrogate.images=64"]
    call("train", "-m", teachers, *short, "grid.drop_path=0.0,0.3", "callbacks.snapshots.steps=[2]")
    call("train", "-m", untrained, *small)
    call("train", "-m", fits, *small, "grid.drop_path=0.0,0.3")
    call("train", "-m", LAST, *small, "grid.steps=2", "task.swaps=0")
    call("report", "experiment=small_scale")
    call("train", "-m", "experiment=small_scale/fits_unscaled", *small, "task.swaps=0", "grid.drop_path=0.0")
    call("report", "experiment=small_scale_unscaled")
    weights = "teacher.weights=${paths.runs}/small_scale/teacher-p${grid.drop_path}-s${seed}"
    call("train", "-m", fits, *small, "study=more", "grid.drop_path=0.3", "task.ks=[2]", "task.draws=2", weights)
    call("report", "study=more", "analysis=small_scale")

    more = pd.read_csv(tmp_path / "runs" / "more" / "report" / "data" / "fits.csv")
    drawn = [f"k2-{kind}{i}" for kind in ("random", "shuffled") for i in range(2)]
    assert sorted(more["piece"]) == ["k2-equal", "k2-maxcut", *drawn]
    unscaled = tmp_path / "runs" / "small_scale_unscaled"
    assert json.loads((unscaled / "fit-p0.0-s0" / "result.json").read_text())["model"]["trained"]
    assert (unscaled / "report" / "report.html").is_file()
    runs = tmp_path / "runs" / "small_scale"
    results = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/result.json")}
    assert set(results) == {
        *("teacher-p0.0-s0", "teacher-p0.3-s0", "fit-p0.0-s0", "fit-p0.3-s0"),
        *("untrained-s0", "checkpoint-p0.3-step2-s0"),
    }
    fit = results["fit-p0.3-s0"]
    assert fit["model"]["tags"] == {"stage": "trained", "drop_path": 0.3, "step": 600, "seed": 0}
    kinds = ("maxcut", "equal", *(f"{kind}{i}" for kind in ("random", "shuffled") for i in range(3)))
    assert set(fit["partitions"]) == {f"k{k}-{kind}" for k in (2, 3) for kind in kinds}
    assert [len(values) for values in fit["layers"]["k2-maxcut"]["r2"].values()] == [12, 12, 12]
    assert len(fit["swaps"]) == 2 * 2 * 3 * 2
    assert (fit["model"]["trained"], results["untrained-s0"]["model"]["trained"]) == (True, False)
    assert list(results["checkpoint-p0.3-step2-s0"]["partitions"]) == ["k2-maxcut", "k3-maxcut"]
    tied = raptor.load(runs / "fit-p0.3-s0")
    assert isinstance(tied, PartitionEnsemble)
    assert tied.labels == {name: piece["labels"] for name, piece in fit["partitions"].items()}

    report = runs / "report"
    frame = pd.read_csv(report / "data" / "fits.csv")
    assert len(frame) == 3 * 16 + 2
    row = frame[(frame["teacher"] == "fit-p0.3-s0") & (frame["piece"] == "k3-random0")].iloc[0]
    assert row["r2_cls"] == pytest.approx(fit["metrics"]["val/k3-random0/r2_cls"])
    assert row["kept"] == pytest.approx(row["top1"] / fit["metrics"]["val/teacher_top1"])
    numbers = json.loads((report / "small_scale.json").read_text())
    assert {row["stage"] for row in numbers["paired"]} == {"trained", "untrained"}
    assert all(row["n"] == 2 for row in numbers["paired"] if row["stage"] == "trained")
    figures = {path.stem for path in (report / "figures").glob("*.png")}
    assert figures == {path.stem for path in (report / "figures").glob("*.pdf")}
    assert {"correlations", "maxcut_against_others", "training", "layer_swaps", "distance_matrices"} <= figures
    page = (report / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures) == 8
    assert "4 teachers (ViTs of 12 layers), data digits" in page
    floors = pd.DataFrame(numbers["above_floors"])
    one = floors[(floors["stage"] == "trained") & (floors["k"] == 3) & (floors["kind"] == "random")].iloc[0]
    fitted = frame[(frame["stage"] == "trained") & (frame["k"] == 3) & (frame["kind"] == "random")]
    assert one["above_floor_cls_mean"] == pytest.approx(fitted["above_floor_cls"].mean())
    assert (report / "above_floors.md").is_file()
    assert "Wilcoxon" in (report / "paired.md").read_text()
    baselines = (report / "stochastic_depth_baselines.md").read_text().splitlines()
    assert "mean image" in baselines[0] and [line.split("|")[1].strip() for line in baselines[2:5]] == ["0", "0.3", "—"]
    assert "mean image" not in (report / "stochastic_depth.md").read_text()


@pytest.mark.parametrize("experiment", GRIDS)
def test_a_grid_is_what_it_says_and_its_jobs_find_each_other(experiment: str) -> None:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("reproduce", [experiment])
        report = hydra.compose("report", [experiment])
        stages = []
        for line in config.stages:
            name, dash, *overrides = shlex.split(line)
            assert (name, dash) == ("train", "-m")
            overrides = [o for o in overrides if not o.startswith("seed=")]
            stages.append([job.config for job in sweeps.jobs("train", [*overrides, "seed=0", *config.train])])
    assert [len(stage) for stage in stages] == GRIDS[experiment]
    assert (report.analysis, report.study) == ("small_scale", config.study)
    jobs = [job for stage in stages for job in stage]
    assert len({(job.study, job.name) for job in jobs}) == len(jobs)
    assert {job.study for job in stages[-1]} == {config.study}
    made = {f"{job.paths.runs}/{job.study}/{job.name}": job for job in stages[0]}
    fitted = [job for job in jobs if job.teacher.weights is not None]
    untrained = [job for job in jobs if "stage" in job.task.get("tags", {}) and job.task.tags.stage == "untrained"]
    assert len(jobs) == len(stages[0]) + len(fitted) + len(untrained)
    for job in fitted:
        folder, _, step = job.teacher.weights.partition("/snapshots/")
        teacher = made[folder]
        assert teacher.teacher.options == job.teacher.options
        assert teacher.teacher.drop_path == job.task.tags.drop_path
        assert int(step or teacher.trainer.max_steps) == job.task.tags.step
        assert not step or int(step) in teacher.callbacks.snapshots.steps


def test_a_study_without_such_runs_is_named(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", "task=linear_probe", "trainer.max_steps=1", "study=small_scale", "name=probe", *QUIET)
    with pytest.raises(
        SystemExit,
        match=r"expected a study with a finished run of task=partitions. Fix: run experiment=small_scale first",
    ):
        call("report", "experiment=small_scale")
    with pytest.raises(SystemExit, match=r"analysis=magic: expected small_scale or .* or null"):
        call("report", "study=small_scale", "analysis=magic")
    call("train", "task=partitions", "task.ks=[1]", "trainer.max_steps=1", "study=small_scale", "name=p", *QUIET)
    with pytest.raises(SystemExit, match=r"task\.tags\.stage=null: expected trained, checkpoint, untrained"):
        call("report", "experiment=small_scale")
