"""Models published in timm's format as teachers, from a folder or from the hub's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from timm.models import save_for_hf
from torch import nn

from raptor.errors import ConfigError
from raptor.models.io import save
from raptor.models.options import TimmTeacherOptions
from raptor.models.pretrained import build_teacher
from raptor.models.teacher import Teacher
from tests.models.test_checkpoints import NAME, OPTIONS, other

MEAN = (0.1, 0.2, 0.3)


@pytest.fixture
def vit() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(NAME, **OPTIONS)


def write_published(vit: nn.Module, folder: Path, safe: bool = True) -> Path:
    config = {"pretrained_cfg": {"mean": MEAN}}
    save_for_hf(vit, folder, model_args=OPTIONS, safe_serialization=safe, model_config=config)
    return folder


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_timm_is_a_teacher(tmp_path: Path, vit: nn.Module, safe: bool) -> None:
    folder = write_published(vit, tmp_path / "model", safe)
    teacher = build_teacher(f"local-dir:{folder}").eval()
    images = torch.randn(2, 3, 32, 32)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(teacher.classify(images), theirs(images))
    assert teacher.spec.name == NAME and teacher.spec.mean == MEAN and teacher.trained
    save(teacher, tmp_path / "saved")  # stands without the folder of timm
    (folder / "config.json").unlink()
    again = Teacher.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.classify(images), theirs(images))
    with pytest.raises(ConfigError, match=r"local-dir:.*expected a folder that timm wrote"):
        build_teacher(f"local-dir:{folder}")


def test_options_and_weights_go_before_those_of_a_folder_of_timm(tmp_path: Path, vit: nn.Module) -> None:
    folder = write_published(vit, tmp_path / "model")
    torch.save(other(vit.state_dict()), tmp_path / "w.pth")
    teacher = build_teacher(
        f"local-dir:{folder}", {"num_classes": 0, "img_size": [32, 64]}, weights=tmp_path / "w.pth", mean=[0.5] * 3
    )
    assert teacher.num_classes == 0 and teacher.grid == (2, 4) and teacher.spec.mean == (0.5,) * 3
    assert torch.equal(teacher.as_timm().norm.bias, vit.get_parameter("norm.bias") + 1)


def test_a_model_of_the_hub_is_read_from_its_cache(
    tmp_path: Path, vit: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"name=hf-hub:me/vit: expected a model that the hub or its cache has"):
        build_teacher("hf-hub:me/vit")
    repository = tmp_path / "models--me--vit"
    write_published(vit, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for name in ("hf-hub:me/vit", "hf-hub:me/vit@main"):
        assert torch.equal(build_teacher(name).as_timm().pos_embed, vit.get_parameter("pos_embed"))


def test_a_folder_of_this_project_is_no_folder_of_timm(tmp_path: Path, teacher: Teacher) -> None:
    save(teacher, tmp_path)
    with pytest.raises(ConfigError, match=r"Fix: set teacher\.weights="):
        build_teacher(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(ConfigError, match="resnet18"):
        build_teacher(f"local-dir:{tmp_path}")
    with pytest.raises(ConfigError, match="expected a folder that exists"):
        build_teacher("local-dir:/nowhere")


def test_a_published_model_is_built_with_random_weights_too(tmp_path: Path, vit: nn.Module) -> None:
    """As the dynamics study builds its untrained network: weights changed to None."""
    node = TimmTeacherOptions(name=f"local-dir:{write_published(vit, tmp_path / 'model')}")
    trained, untrained = node.build(), node.build(weights=None, pretrained=False, head=None)
    assert trained.trained and not untrained.trained
    assert torch.equal(trained.as_timm().blocks[0].attn.qkv.weight, vit.get_parameter("blocks.0.attn.qkv.weight"))
    assert not torch.equal(untrained.as_timm().blocks[0].attn.qkv.weight, vit.get_parameter("blocks.0.attn.qkv.weight"))


def test_means_of_another_number_of_channels_are_refused_before_timm_builds() -> None:
    with pytest.raises(ValueError, match=r"mean=.*: expected 1 numbers, as teacher\.options\.in_chans=1 says"):
        TimmTeacherOptions(name="vit_tiny_patch16_224", options={"in_chans": 1}, mean=[0.5, 0.5])


def test_a_home_folder_is_written_as_a_tilde(tmp_path: Path, vit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_published(vit, tmp_path / "model")
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    for teacher in (build_teacher(NAME, OPTIONS, weights="~/w.pth"), build_teacher("local-dir:~/model")):
        assert torch.equal(teacher.as_timm().pos_embed, vit.pos_embed)
