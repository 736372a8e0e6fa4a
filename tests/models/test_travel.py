"""Models that leave: hub folders, cards, ONNX and torch.export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import raptor
from raptor.errors import ConfigError, ModelFileError
from raptor.models.block import BlockConfig
from raptor.models.export import export_int8, export_onnx, export_program
from raptor.models.io import save
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import phases_of
from tests.conftest import tiny_spec

ABOUT = {
    "task": "finetune",
    "seed": 3,
    "teacher": {"vit": "vit_tiny_patch16_224"},
    "data": {"name": "digits", "val": 360},
    "metrics": {"val/top1": 0.98125, "val/r2_cls": 0.5},
}


@pytest.fixture
def surrogate(teacher: Teacher, block_config: BlockConfig) -> Surrogate:
    surrogate = Surrogate.of_teacher(teacher, PhaseBlocks(block_config, phases_of([1, 2], 4), seed=0))
    for parameter in surrogate.blocks.parameters():
        parameter.data.normal_(std=0.2)
    return surrogate.eval()


def test_save_pretrained_and_from_pretrained(tmp_path: Path, surrogate: Surrogate) -> None:
    surrogate.about = ABOUT
    surrogate.save_pretrained(tmp_path / "hub")
    images = torch.randn(2, 1, 8, 8)
    for again in (Surrogate.from_pretrained(tmp_path / "hub"), raptor.load(tmp_path / "hub")):
        assert torch.equal(again.forward_features(images), surrogate(images))
        assert again.about == ABOUT
    with pytest.raises(
        ModelFileError, match=r"expected a Teacher \(it holds a model of kind surrogate\)\. Fix: use raptor\.load"
    ):
        Teacher.from_pretrained(tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: raptor")
    assert "3 tied blocks (phases cut after layers 1, 2)" in card
    assert "| val/top1 | 0.9812 |" in card and "`digits` (360 held-out images)" in card
    (tmp_path / "hub" / "README.md").unlink()
    raptor.load(tmp_path / "hub").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card, "a card survives a round trip"


@pytest.mark.parametrize("kind", ["teacher", "blocks"])
def test_other_kinds_travel_too(tmp_path: Path, teacher: Teacher, surrogate: Surrogate, kind: str) -> None:
    model = teacher if kind == "teacher" else surrogate.blocks
    model.save_pretrained(tmp_path / "hub")
    again = type(model).from_pretrained(tmp_path / "hub")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert "No figures came with this model." in (tmp_path / "hub" / "README.md").read_text()


def test_a_surrogate_gives_features_as_timm_models_do(surrogate: Surrogate) -> None:
    images = torch.randn(2, 1, 8, 8)
    layers = surrogate.rollout(surrogate.embed(images))
    (last,) = surrogate.get_intermediate_layers(images, reshape=True)
    patches = surrogate.layout.select(layers[:, -1], "patches")
    assert torch.equal(last, patches.transpose(1, 2).reshape(2, 16, 2, 2))
    (first, prefix), (third, _) = surrogate.get_intermediate_layers(images, n=[0, -2], return_prefix_tokens=True)
    assert torch.equal(torch.cat([prefix, first], 1), layers[:, 0])
    torch.testing.assert_close(third, surrogate.layout.select(layers[:, 2], "patches"))
    assert [info["module"] for info in surrogate.feature_info] == ["blocks.0", "blocks.1", "blocks.2", "blocks.2"]
    assert {info["num_chs"] for info in surrogate.feature_info} == {16}
    assert {info["reduction"] for info in surrogate.feature_info} == {4}
    with pytest.raises(ConfigError, match=r"n=\[4\]: expected blocks that exist, 0\.\.3"):
        surrogate.get_intermediate_layers(images, n=[4])


def test_an_onnx_file_reproduces_eager_outputs(tmp_path: Path, surrogate: Surrogate) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export_onnx(surrogate, tmp_path / "k3.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "k3.onnx"))
    images = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    tokens = session.run(None, {"images": images})[0]
    with torch.no_grad():
        np.testing.assert_allclose(tokens, surrogate(torch.from_numpy(images)).numpy(), atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map["layers"] == "4"


def test_an_int8_file_is_smaller_and_near(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    teacher = Teacher(tiny_spec(embed_dim=64, num_heads=4)).eval()
    model = Surrogate.of_teacher(teacher, PhaseBlocks(BlockConfig(64, 4, layer_scale=0.3), phases_of([2], 4), seed=0))
    export_onnx(model, tmp_path / "plain.onnx")
    cosine = export_int8(model, tmp_path / "int8.onnx")
    assert 0.99 < cosine <= 1.0001
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "plain.onnx").stat().st_size
    images = torch.randn(5, 1, 8, 8)
    session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"))
    tokens = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.no_grad():
        assert float(torch.nn.functional.cosine_similarity(tokens, model(images), dim=-1).min()) > 0.98
    with pytest.raises(ConfigError, match=r"mean cosine >= 1\.1 .*: not written"):
        export_int8(model, tmp_path / "no.onnx", least_cosine=1.1)
    assert not (tmp_path / "no.onnx").exists()


def test_leaving_early_gives_that_layer_and_runs_no_deeper(surrogate: Surrogate) -> None:
    images = torch.randn(3, 1, 8, 8)
    assert surrogate.exits == [*surrogate.boundaries, 4]
    calls: list[int] = []
    for i, piece in enumerate(surrogate.blocks):
        piece.block.attn.register_forward_hook(lambda *_, i=i: calls.append(i))
    with torch.no_grad():
        layers = surrogate.rollout(surrogate.embed(images))
        calls.clear()
        for exit_ in surrogate.exits:
            torch.testing.assert_close(surrogate.classify(images, exit_), surrogate.head(layers[:, exit_ - 1]))
            assert len(calls) == exit_
            calls.clear()


def test_an_exported_program_reproduces_eager_outputs(tmp_path: Path, surrogate: Surrogate) -> None:
    export_program(surrogate, tmp_path / "k3.pt2")
    program = torch.export.load(tmp_path / "k3.pt2").module()
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(program(images), surrogate(images))


def test_an_export_that_differs_is_not_written(tmp_path: Path, surrogate: Surrogate) -> None:
    with pytest.raises(ConfigError, match=r"differs by at most .*: not written"):
        export_program(surrogate, tmp_path / "k3.pt2", tolerance=-1)
    assert not (tmp_path / "k3.pt2").exists()


@pytest.mark.slow
def test_the_export_script(tmp_path: Path, surrogate: Surrogate) -> None:
    save(surrogate, tmp_path / "run")
    script = Path(__file__).parents[2] / "scripts" / "export.py"

    def export(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(script), *arguments], cwd=tmp_path, capture_output=True, text=True)

    done = export("run", "k3.pt2")
    assert done.returncode == 0 and "from the model's own output" in done.stdout, done.stderr
    assert "target=k3.pth: expected a file .onnx or .pt2" in export("run", "k3.pth").stderr
    assert "target=k3.pt2: expected a file .onnx, as --int8 writes" in export("run", "k3.pt2", "--int8").stderr
    assert "does not exist" in export("nowhere", "k3.pt2").stderr
