"""The teacher of a surrogate's run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
import torch
from hydra.core.global_hydra import GlobalHydra
from timm.models import save_for_hf

from raptor.cli import sweeps
from raptor.dynamics import main
from raptor.errors import ConfigError
from raptor.models.options import TimmTeacherOptions
from raptor.runs.identity import identity
from raptor.studies.dynamics.networks import networks_of

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


def test_the_untrained_network_of_a_published_teacher_is_untrained(tmp_path: Path) -> None:
    """A name that brings weights brings none to the network beside it."""
    torch.manual_seed(0)
    values = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 5}
    vit = timm.create_model("vit_tiny_patch16_224", **values)
    vit.blocks[0].attn.qkv.weight.data.fill_(1.0)
    save_for_hf(vit, tmp_path, model_args=values)
    networks = networks_of(TimmTeacherOptions(name=f"local-dir:{tmp_path}"), [], untrained=True)
    assert list(networks) == ["teacher", "untrained"]
    weights = [dict(network.named_parameters())["blocks.0.attn.qkv.weight"] for network in networks.values()]
    assert bool((weights[0] == 1).all())
    assert 0.0 < float(weights[1].std()) < 0.1
