"""Weights as people have them: files of training scripts, wrappers and prefixes; wrong files say what they hold."""

from __future__ import annotations

import argparse
import pathlib
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from raptor.errors import ModelFileError, RaptorError
from raptor.models.checkpoints import read_tensors
from raptor.models.io import save
from raptor.models.pretrained import build_teacher

NAME = "vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2, "num_classes": 5}


@pytest.fixture
def vit() -> nn.Module:
    torch.manual_seed(3)
    return timm.create_model(NAME, **OPTIONS)


class OwnLightningModule(pl.LightningModule):
    def __init__(self, vit: nn.Module, config: Any, where: Path) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="vit")
        self.net = vit


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the model that is not to be taken."""
    return {name: tensor + 1 for name, tensor in state.items()}


def timms_training(vit: nn.Module, folder: Path) -> str:
    """As timm's train.py writes model_best.pth.tar."""
    state, path = vit.state_dict(), folder / "model_best.pth.tar"
    args = argparse.Namespace(model=NAME, lr=np.float64(0.1), data=pathlib.PurePosixPath("in1k"), seen={1})
    torch.save({"epoch": 3, "arch": NAME, "state_dict": other(state), "args": args, "state_dict_ema": state}, path)
    return str(path)


def lightnings(vit: nn.Module, folder: Path) -> str:
    """As Trainer.save_checkpoint writes it, with OmegaConf options and a path among the hyper-parameters."""
    module = OwnLightningModule(vit, OmegaConf.create({"lr": 0.1, "betas": [0.9, 0.99], "name": "x"}), folder)
    trainer = pl.Trainer(
        max_steps=0, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt")


def dino(vit: nn.Module, folder: Path) -> str:
    """As DINO's training writes it: two networks in DDP, each with a projection head."""
    state = vit.state_dict()
    heads = {"module.head.mlp.0.weight": torch.zeros(2, 24)}
    networks = {
        name: prefixed("module.backbone.", weights) | heads
        for name, weights in (("student", other(state)), ("teacher", state))
    }
    options = {"fn": partial(torch.optim.AdamW, lr=1), "seen": defaultdict(list, a=[1])}
    torch.save({**networks, "args": argparse.Namespace(**options)}, folder / "checkpoint.pth")
    return str(folder / "checkpoint.pth")


def saved(change: Callable[[dict[str, Tensor]], Any], file: str = "w.pth") -> Callable[[nn.Module, Path], str]:
    def write(vit: nn.Module, folder: Path) -> str:
        torch.save(change(vit.state_dict()), folder / file)
        return str(folder / file)

    return write


def safetensors(vit: nn.Module, folder: Path) -> str:
    save_file(vit.state_dict(), folder / "w.safetensors")
    return str(folder / "w.safetensors")


def of_this_project(vit: nn.Module, folder: Path) -> str:
    teacher = build_teacher(NAME, OPTIONS)
    teacher.as_timm().load_state_dict(vit.state_dict())
    return str(save(teacher, folder))


ROUTES: dict[str, Callable[[nn.Module, Path], str]] = {
    "state dict": saved(lambda state: state),
    "upper case": saved(lambda state: state, "W.PTH"),
    "FSDP": saved(lambda state: {n.replace(".attn", "._fsdp_wrapped_module.attn"): x for n, x in state.items()}),
    "torch.compile of blocks": saved(
        lambda state: {f"_orig_mod.{n.replace('.mlp.', '._orig_mod.mlp.')}": x for n, x in state.items()}
    ),
    "averages in a list": saved(
        lambda state: {"model": state, "ema": {"decay": torch.tensor(0.9), "shadow_params": list(state.values())}}
    ),
    "averaged by torch": saved(lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.", state)}),
    "safetensors": safetensors,
    "timm's train.py": timms_training,
    "DDP": saved(lambda state: prefixed("module.", state), "w.pt"),
    "torch.compile in DDP": saved(lambda state: {"model": prefixed("_orig_mod.module.", state)}),
    "Lightning": lightnings,
    "DINO": dino,
    "encoder beside others": saved(
        lambda state: {"net": {"state_dict": prefixed("encoder.", state) | {"fc.bias": torch.ones(3)}}}
    ),
    "average within one state dict": saved(
        lambda state: prefixed("model.", other(state)) | prefixed("model_ema.module.", state)
    ),
    "MAE with its decoder": saved(lambda state: {"model": {**state, "decoder_pos_embed": torch.zeros(1, 5, 64)}}),
    "folder of this project": of_this_project,
    "file of this project": lambda vit, folder: f"{of_this_project(vit, folder)}/model.safetensors",
    "checkpoint of this project": saved(
        lambda state: {
            "state_dict": {
                f"teacher.{name}" if name.startswith("blocks.") else f"teacher.shell.vit.{name}": tensor
                for name, tensor in state.items()
            }
        },
        "last.ckpt",
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_ones_own_weights_come_by_any_route(tmp_path: Path, vit: nn.Module, route: str) -> None:
    path = ROUTES[route](vit, tmp_path)
    teacher = build_teacher(NAME, OPTIONS, weights=path)
    ours, theirs = teacher.as_timm().state_dict(), vit.state_dict()
    assert ours.keys() == theirs.keys() and teacher.trained
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_and_image_size(tmp_path: Path, vit: nn.Module, dtype: torch.dtype) -> None:
    torch.save({name: x.to(dtype) for name, x in vit.state_dict().items()}, tmp_path / "w.pth")
    same = build_teacher(NAME, OPTIONS, weights=tmp_path / "w.pth").as_timm()
    assert {p.dtype for p in same.parameters()} == {torch.float32}
    assert torch.equal(same.pos_embed, vit.pos_embed.to(dtype).float())
    wide = build_teacher(NAME, {**OPTIONS, "img_size": [32, 64]}, weights=tmp_path / "w.pth").as_timm()
    expected = resample_abs_pos_embed(vit.pos_embed.to(dtype).float(), [2, 4])
    torch.testing.assert_close(wide.pos_embed, expected, rtol=0, atol=1e-3)


def scripted(vit: nn.Module, folder: Path) -> str:
    with warnings.catch_warnings(action="ignore"):  # deprecated, and met all the same
        torch.jit.script(vit.patch_embed.proj).save(str(folder / "w.pt"))
    return str(folder / "w.pt")


def whole_module(vit: nn.Module, folder: Path) -> str:
    torch.save(vit, folder / "w.pth")
    return str(folder / "w.pth")


def pointer(vit: nn.Module, folder: Path) -> str:
    (folder / "w.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return str(folder / "w.bin")


def state_of(name: str, **options: Any) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda _: timm.create_model(name, **options).state_dict()


WRONG: dict[str, tuple[Callable[[nn.Module, Path], str], str]] = {
    "whole module": (whole_module, r"names the code timm\S*VisionTransformer and was not opened.*Fix: where you trust"),
    "TorchScript": (scripted, "TorchScript archive"),
    "pointer": (pointer, "pointer of Git LFS"),
    "no weights": (saved(lambda _: {"state_dict": {"epoch": 3}}), r"it holds state_dict \(epoch\)"),
    "arrays": (
        saved(lambda state: {name: x.numpy() for name, x in state.items()}),
        r"it holds cls_token that is no tensor, pos_embed",
    ),
    "a folder": (lambda vit, folder: str(folder), r"a run folder with model\.json, or a weight file .*holds nothing"),
    "not a dict": (saved(lambda _: [1, 2]), "it holds a list"),
    "another size": (
        saved(lambda state: prefixed("module.", state_of(NAME, **{**OPTIONS, "embed_dim": 36, "depth": 1})(state))),
        r"width 24, 2 blocks.*holds width 36, 1 blocks.*missing \(module\.blocks\.1\.norm1\.weight.*"
        r"module\.cls_token is \(1, 1, 36\), expected \(1, 1, 24\)",
    ),
    "another head": (
        saved(lambda state: prefixed("net.", {n: x[:3] if n.startswith("head.") else x for n, x in state.items()})),
        r"net\.head\.weight is \(3, 24\).*Fix: set teacher\.options\.num_classes=3, or 0",
    ),
    "no head": (
        saved(lambda state: {name: x for name, x in state.items() if not name.startswith("head.")}),
        r"missing \(head\.weight, head\.bias\).*Fix: set teacher\.options\.num_classes=0\.",
    ),
    "no ViT": (saved(lambda _: {"layer1.conv1.weight": torch.zeros(3)}), r"holds 1 tensors: layer1\.conv1\.weight"),
    "transformers": (
        saved(lambda _: {"vit.embeddings.patch_embeddings.projection.weight": torch.zeros(3)}),
        "names of Hugging Face transformers.*Fix: take the weights of timm",
    ),
    "two ViTs": (
        saved(lambda state: prefixed("left.", state) | prefixed("right.", state)),
        r"one ViT \(it holds those of left\., right\.\)",
    ),
    "more than a ViT": (
        saved(lambda state: {**state, "blocks.0.lora.weight": torch.zeros(2)}),
        r"1 are not of this model \(blocks\.0\.lora\.weight\)",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_says_what_it_holds_in_its_own_names(tmp_path: Path, vit: nn.Module, kind: str) -> None:
    write, message = WRONG[kind]
    path = write(vit, tmp_path)
    with pytest.raises(ModelFileError, match=f"(?s)^teacher.weights={path}: expected .*{message}") as error:
        build_teacher(NAME, OPTIONS, weights=path)
    assert ". Fix: " in str(error.value)


def test_metas_names_are_kept_in_errors(tmp_path: Path) -> None:
    options = {**OPTIONS, "num_classes": 0, "img_size": 28}
    vit = timm.create_model("vit_small_patch14_reg4_dinov2", **options)
    state = {"mask_token": torch.zeros(1, 24), **vit.state_dict()}
    state["register_tokens"] = state.pop("reg_token")[:, :2]
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 24), state["pos_embed"]], dim=1)
    torch.save({"teacher": prefixed("backbone.", state)}, tmp_path / "meta.pth")
    with pytest.raises(ModelFileError, match=r"backbone\.register_tokens is \(1, 2, 24\), expected \(1, 4, 24\)"):
        build_teacher("vit_small_patch14_reg4_dinov2", options, weights=tmp_path / "meta.pth")


class Custom:
    """A class of one's own among the options."""


@pytest.mark.parametrize("legacy", [False, True])
def test_options_beside_the_weights_are_not_built(tmp_path: Path, legacy: bool) -> None:
    options = argparse.Namespace(path=Path("a"), array=np.ones(2), config=OmegaConf.create({"a": {"b": [1]}}))
    file = {"model": {"x": torch.ones(2)}, "args": options}
    torch.save(file, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_tensors(tmp_path / "a.pth")["x"], torch.ones(2))
    torch.save({**file, "own": Custom()}, tmp_path / "b.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(RaptorError, match=rf"names the code {__name__}\.Custom"):
        read_tensors(tmp_path / "b.pth")
    with pytest.raises(Exception, match="argparse"):  # allowed while we read, and no longer
        torch.load(tmp_path / "a.pth", weights_only=True)
