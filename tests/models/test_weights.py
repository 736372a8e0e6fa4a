"""Weights from elsewhere: Meta's layouts, resized position embeddings, files that would run code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

import raptor
from raptor.errors import ModelFileError, RaptorError
from raptor.models.checkpoints import read_tensors
from raptor.models.heads import LinearProbe
from raptor.models.io import save
from raptor.models.official import read_official
from raptor.models.pretrained import build_teacher
from raptor.models.teacher import Teacher
from raptor.models.weights import resize_position_meta
from raptor.training.checkpoints import RunCheckpointIO

OPTIONS = {"img_size": 28, "depth": 2, "embed_dim": 24, "num_heads": 2}


def random_weights(teacher: Teacher) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = {n.removeprefix("shell.vit."): t for n, t in teacher.state_dict().items()}
    return {n: torch.randn_like(t) for n, t in state.items()}


def in_metas_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of what the conversion has to do, from the published facts: one embedding for cls and patches."""
    out = dict(state)
    out["mask_token"] = torch.zeros(1, 24)
    if "reg_token" in out:
        out["register_tokens"] = out.pop("reg_token")
        on_cls = torch.randn(1, 1, 24)
        out["pos_embed"] = torch.cat([on_cls, out["pos_embed"]], dim=1)
        out["cls_token"] = out["cls_token"] - on_cls
    return out


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("chunked", [False, True])
def test_metas_own_key_layout_is_converted(tmp_path: Path, name: str, chunked: bool) -> None:
    state = random_weights(build_teacher(name, OPTIONS))
    theirs = in_metas_layout(state)
    if chunked:  # as its training writes them
        heads = {"dino_head.mlp.0.weight": torch.zeros(2, 24)}
        theirs = heads | {"backbone." + re.sub(r"^blocks\.(\d+)", r"blocks.0.\1", n): t for n, t in theirs.items()}
        torch.save({"teacher": theirs}, tmp_path / "meta.pth")
    else:
        torch.save(theirs, tmp_path / "meta.pth")
    teacher = build_teacher(name, OPTIONS, weights=tmp_path / "meta.pth")
    for key, value in teacher.state_dict().items():
        torch.testing.assert_close(value, state[key.removeprefix("shell.vit.")], rtol=0, atol=1e-6)


def cubic(distance: float) -> float:
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def meta_by_hand(grid: np.ndarray, size: int) -> np.ndarray:
    """Bicubic resize of ``(n, n, D)`` with sample points of scale (size + 0.1) / n, written out."""
    n = len(grid)
    weights = np.zeros((size, n))
    for i in range(size):
        point = (i + 0.5) / ((size + 0.1) / n) - 0.5
        low = int(np.floor(point))
        for j in range(low - 1, low + 3):
            weights[i, min(max(j, 0), n - 1)] += cubic(point - j)
    return np.einsum("ia,jb,abd->ijd", weights, weights, grid)


@pytest.mark.parametrize("size", [3, 16, 45])
def test_dinov2_without_registers_is_resized_as_meta_does(size: int) -> None:
    position = torch.randn(1, 1 + 37 * 37, 5)
    resized = resize_position_meta(position, size, size)
    expected = meta_by_hand(position[0, 1:].view(37, 37, 5).double().numpy(), size)
    assert torch.equal(resized[:, 0], position[:, 0])
    np.testing.assert_allclose(resized[0, 1:].view(size, size, 5), expected, atol=2e-4)
    assert torch.equal(resize_position_meta(position, 37, 37), position)


def test_only_dinov2_without_registers_is_resized_so(tmp_path: Path) -> None:
    for name, ours in (("vit_small_patch14_dinov2", True), ("vit_small_patch14_reg4_dinov2", False)):
        published = build_teacher(name, {**OPTIONS, "img_size": 518})
        state = random_weights(published)
        torch.save(state, tmp_path / "weights.pth")
        teacher = build_teacher(name, {**OPTIONS, "img_size": 224}, weights=tmp_path / "weights.pth")
        position = teacher.shell.vit.pos_embed
        if ours:
            assert torch.equal(position, resize_position_meta(state["pos_embed"], 16, 16))
        else:  # with antialias: the mean over the grid survives shrinking
            assert position.shape == (1, 256, 24)
            torch.testing.assert_close(position.mean(1), state["pos_embed"].mean(1), rtol=0, atol=0.02)


def test_any_input_size_of_another_vit(tmp_path: Path) -> None:
    options = {"embed_dim": 24, "num_heads": 2, "depth": 1}
    state = random_weights(build_teacher("vit_tiny_patch16_224", options))
    torch.save({"model": state}, tmp_path / "weights.pth")
    teacher = build_teacher("vit_tiny_patch16_224", {**options, "img_size": [64, 96]}, weights=tmp_path / "weights.pth")
    assert teacher.layout.patches == 24
    assert teacher(torch.randn(1, 3, 64, 96)).shape == (1, 25, 24)
    headless = build_teacher("vit_tiny_patch16_224", {**options, "num_classes": 0}, weights=tmp_path / "weights.pth")
    assert headless.num_classes == 0


def test_a_probe_of_ours_serves_as_head(tmp_path: Path, teacher: Teacher) -> None:
    probe = LinearProbe(32, 7)
    save(probe, tmp_path / "probe")
    save(teacher, tmp_path / "teacher")
    spec = teacher.spec
    arguments = {"mean": [0.3], "std": [0.4], "weights": tmp_path / "teacher"}
    with pytest.raises(
        ModelFileError, match="missing"
    ):  # the folder of a teacher without such a head does not fill one
        build_teacher(spec.name, spec.options, linear_head=7, **arguments)
    images = torch.randn(3, 1, 8, 8)
    beside = build_teacher(spec.name, spec.options, head=tmp_path / "probe", **arguments).eval()
    torch.testing.assert_close(beside(images), teacher(images))
    torch.testing.assert_close(beside.classify(images), probe(teacher.layout.features(teacher(images))))
    headed = build_teacher(spec.name, spec.options, mean=[0.3], std=[0.4], head=tmp_path / "probe").eval()
    save(headed, tmp_path / "headed")
    again = raptor.load(tmp_path / "headed")
    expected = probe(again.layout.features(again(images)))
    torch.testing.assert_close(again.classify(images), expected)
    save(LinearProbe(16, 7), tmp_path / "narrow")
    with pytest.raises(ModelFileError, match=r"32 features.*it takes 16"):
        build_teacher(spec.name, spec.options, mean=[0.3], std=[0.4], head=tmp_path / "narrow")


@pytest.mark.parametrize("size", [[12, 16], 24, [4, 16]])  # the last has as many patches as the square grid
def test_a_saved_teacher_opens_at_any_input_size(tmp_path: Path, teacher: Teacher, size: Any) -> None:
    save(teacher, tmp_path / "teacher")
    options = {**teacher.spec.options, "img_size": size}
    wide = build_teacher(teacher.spec.name, options, weights=tmp_path / "teacher", mean=[0.3], std=[0.4])
    ours, theirs = wide.state_dict(), teacher.state_dict()
    key = "shell.vit.pos_embed"
    expected = timm.layers.resample_abs_pos_embed(theirs[key], list(wide.grid), num_prefix_tokens=3)
    assert torch.equal(ours.pop(key), expected)
    del theirs[key]
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    save(wide, tmp_path / "wide")
    same = build_teacher(teacher.spec.name, options, weights=tmp_path / "wide", mean=[0.3], std=[0.4])
    assert torch.equal(same.state_dict()[key], expected)
    if size == [12, 16]:  # an oblong grid cannot be told from its number of patches
        square = {**options, "img_size": 20}
        with pytest.raises(ModelFileError, match=r"a square grid \(it has 12 patches"):
            build_teacher(teacher.spec.name, square, weights=tmp_path / "wide", mean=[0.3], std=[0.4])


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


LOADERS: dict[str, Callable[[Path], Any]] = {
    "teacher.weights": lambda path: build_teacher("vit_tiny_patch16_224", OPTIONS, weights=path),
    "teacher.head": lambda path: build_teacher("vit_tiny_patch16_224", OPTIONS, head=path),
    "tensors": read_tensors,
    "official": read_official,
    "checkpoint": lambda path: RunCheckpointIO(cast(Any, None)).load_checkpoint(path, weights_only=True),
    "raptor.load": lambda path: raptor.load(path.parent / "folder"),
    "from_pretrained": lambda path: Teacher.from_pretrained(path.parent / "folder"),
}


def test_a_model_json_cannot_make_timm_open_a_file(tmp_path: Path, teacher: Teacher) -> None:
    torch.save({"x": Evil(tmp_path / "ran")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=False)
    save(teacher, tmp_path / "folder")
    path = tmp_path / "folder" / "model.json"
    path.write_text(path.read_text().replace('"img_size"', f'"checkpoint_path": "{tmp_path / "evil.pth"}", "img_size"'))
    with pytest.raises(ModelFileError, match="no option by which timm reads files"):
        raptor.load(tmp_path / "folder")
    assert not (tmp_path / "ran").exists()


def test_deit3s_published_layout_is_converted(tmp_path: Path) -> None:
    options = {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 32}
    state = random_weights(build_teacher("deit3_small_patch16_224", options))
    theirs = {re.sub(r"ls([12])\.gamma", r"gamma_\1", n): t for n, t in state.items()}
    torch.save({"model": theirs}, tmp_path / "deit.pth")
    teacher = build_teacher("deit3_small_patch16_224", options, weights=tmp_path / "deit.pth")
    assert torch.equal(teacher.get_parameter("blocks.1.ls2.gamma"), state["blocks.1.ls2.gamma"])


def test_damaged_pickles_are_model_file_errors(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 400, 200):
        broken = bytearray(whole)
        broken[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.pth").write_bytes(broken)
        try:
            read_tensors(tmp_path / "b.pth")
        except ModelFileError:
            continue  # anything else would end in a traceback


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_pickle_that_would_run_code_is_refused_by_every_loader(
    tmp_path: Path, teacher: Teacher, loader: str, legacy: bool
) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"weight": torch.zeros(2, 2), "x": Evil(marker)}, path, _use_new_zipfile_serialization=not legacy)
    save(teacher, tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(RaptorError):
        LOADERS[loader](path)
    assert not marker.exists(), "nothing may run"


def test_files_that_hold_no_weights_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match=r"expected a state dict.*\(it holds epoch of int\)"):
        read_tensors(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelFileError, match="damaged or no file of"):
        read_tensors(tmp_path / "text.pth")
    torch.save({"x": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ModelFileError, match=r"names the code posix.mkdir and was not opened"):
        read_tensors(tmp_path / "evil.pth")
    with pytest.raises(ModelFileError, match=r"known are \.safetensors"):
        read_tensors((tmp_path / "text.pth").rename(tmp_path / "a.txt"))
