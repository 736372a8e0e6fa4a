"""The teacher of a surrogate's run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from raptor.cli import sweeps
from raptor.dynamics import main
from raptor.errors import ConfigError
from raptor.runs.identity import identity

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs_v1" / "finished"


def options(*overrides: str) -> dict[str, object]:
    GlobalHydra.instance().clear()
    (job,) = sweeps.jobs("dynamics", list(overrides))
    return identity(main.parse(job.config))


def test_it_is_the_one_that_the_run_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FIXTURE, run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("depth: 12", "depth: 9"))
    found = options(f"surrogates=[{run}]")
    assert found["teacher.options.depth"] == 9
    assert found["teacher.name"] == "vit_tiny_patch16_224"
    assert options("teacher=digits_vit", f"surrogates=[{run}]")["teacher.options.depth"] == 12
    with pytest.raises(ConfigError, match=r"surrogates=.*nowhere: expected a run folder with config\.yaml"):
        options(f"surrogates=[{tmp_path / 'nowhere'}]")


def test_without_surrogates_it_is_the_digits_vit() -> None:
    assert options() == options("teacher=digits_vit")
