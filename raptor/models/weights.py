"""Weights of a model: read from files without running what they name, converted, and put in place."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from raptor.errors import ModelFileError

log = logging.getLogger(__name__)
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
WRAPPERS = ("model", "state_dict", "teacher")  # keys under which training scripts put a state dict
META_OFFSET = 0.1  # of DINOv2 without registers, to the size of the new grid


def read_tensors(path: Path, where: str | None = None) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a state dict that ``torch.save`` wrote.

    Parameters
    ----------
    path
        The file. A pickle is read by torch's weights-only loader, which knows tensors and plain containers and
        runs nothing.
    where
        How to name the file in errors.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, holds anything but tensors, or names code.
    """
    where = where or str(path)
    if not path.is_file():
        raise ModelFileError(f"{where} does not exist: give a run folder, a .safetensors or a .pth file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelFileError(f"{path} is truncated or no safetensors file ({error}): copy it again") from error
    if path.suffix not in PICKLES:
        raise ModelFileError(f"{where} is no weight file: known are .safetensors, {', '.join(PICKLES)}")
    return _unwrap(read_pickle(path, where), where)


def read_pickle(path: Path, where: str | None = None) -> Any:
    """What ``torch.save`` wrote, by torch's weights-only loader: tensors and plain containers, and nothing is run.

    Raises
    ------
    ModelFileError
        If the file is damaged or names code.
    """
    where = where or str(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can end in any error
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise ModelFileError(
                f"{where} names the code {named[1]} and was not opened: only tensors in plain containers are read. "
                "Save its state_dict() where you trust it"
            ) from error
        if "TorchScript" in str(error):
            raise ModelFileError(
                f"{where} is a TorchScript archive: save the state_dict() of the module in it"
            ) from error
        raise ModelFileError(f"{where} is damaged or no file of torch.save: copy it again ({error})") from error


def _unwrap(values: Any, where: str) -> dict[str, Tensor]:
    for _ in WRAPPERS:
        if not isinstance(values, Mapping):
            break
        inner = next((values[key] for key in WRAPPERS if isinstance(values.get(key), Mapping)), None)
        if inner is None:
            break
        values = inner
    if not isinstance(values, Mapping) or not values or not all(isinstance(v, Tensor) for v in values.values()):
        raise ModelFileError(f"{where} holds no state dict (names with tensors): save model.state_dict() there")
    return {str(name): tensor for name, tensor in values.items()}


def fill(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a model, all or none.

    Raises
    ------
    ModelFileError
        If names or shapes do not match; the model is then unchanged.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("too many", extra))
        if names
    ] + sorted(shapes)[:3]
    if problems:
        raise ModelFileError(
            f"{where} does not fit the model: {'; '.join(problems)}. Set the options of the model that made it"
        )
    model.load_state_dict(state)


def convert(vit: VisionTransformer, name: str, state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights of a ViT in the key layout and at the input size of a timm model.

    The layouts are those that timm knows (its own, Meta's DINOv2, MAE, DeiT, OpenAI's and OpenCLIP's state dicts). A
    position embedding of another grid is resized: bicubic with antialias, except for DINOv2 without
    registers, where :func:`resize_position_meta` does what Meta's code does.

    Parameters
    ----------
    vit
        The model that is to take the weights.
    name
        timm's name of it.
    state
        The weights.
    where
        How to name their file in errors.

    Raises
    ------
    ModelFileError
        If the layout cannot be converted.
    """
    # Meta's training checkpoints hold the backbone beside its heads, with blocks.<chunk>.<block>
    if any(key.startswith("backbone.") for key in state):
        state = {key.removeprefix("backbone."): x for key, x in state.items() if key.startswith("backbone.")}
    state = {re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", key): x for key, x in state.items()}
    rows, columns = vit.patch_embed.grid_size
    bilinear = {"interpolation": "bilinear", "antialias": False} if name.startswith("flexivit") else {}
    try:
        if follows_meta(name):
            state["pos_embed"] = resize_position_meta(state["pos_embed"], rows, columns)
        state = dict(checkpoint_filter_fn(state, vit, adapt_layer_scale=name.startswith("deit3"), **bilinear))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise ModelFileError(f"{where} has a key layout that does not fit {name} ({error})") from error
    if vit.num_classes == 0:
        state = {k: v for k, v in state.items() if not k.startswith(("head.", "head_dist."))}
    return state


def fit_positions(vit: VisionTransformer, name: str, position_1ND: Tensor, same_grid: bool, where: str) -> Tensor:
    """A position embedding at the grid of a model, resized as :func:`convert` would, unless it is of the same grid.

    Raises
    ------
    ModelFileError
        If it is of another grid, which is not square.
    """
    if same_grid or position_1ND.shape[2] != vit.embed_dim:
        return position_1ND  # of another width: fill tells that, with all else that does not fit
    rows, columns = vit.patch_embed.grid_size
    prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
    old = round((position_1ND.shape[1] - prefix) ** 0.5)
    if old * old != position_1ND.shape[1] - prefix:
        raise ModelFileError(
            f"{where} has a position embedding for {position_1ND.shape[1] - prefix} patches, which are no square to be "
            f"resized to {rows}x{columns}: set the teacher.options.img_size of the model that made it"
        )
    if follows_meta(name):
        return resize_position_meta(position_1ND, rows, columns)
    return resample_abs_pos_embed(position_1ND, [rows, columns], num_prefix_tokens=prefix)


def follows_meta(name: str) -> bool:
    """Whether timm's name is one of a DINOv2 without registers, which is resized in Meta's way."""
    return "dinov2" in name and "_reg" not in name


def resize_position_meta(position_1ND: Tensor, rows: int, columns: int) -> Tensor:
    """Resize a position embedding as Meta's DINOv2 without registers does: bicubic, no antialias.

    The scale is ``(size + 0.1) / old size`` and not ``size / old size``, a guard against rounding that the
    published weights are always used with, and which moves every sample point.

    Parameters
    ----------
    position_1ND
        Embedding of the class token, then of a square grid, ``(1, 1 + n*n, D)``.
    rows, columns
        The new grid.

    Returns
    -------
    Tensor
        ``(1, 1 + rows*columns, D)``.

    Raises
    ------
    ValueError
        If the old grid is neither square nor of the new size.
    """
    cls_11D, grid_1ND = position_1ND[:, :1], position_1ND[:, 1:].float()
    old = round(grid_1ND.shape[1] ** 0.5)
    if old * old != grid_1ND.shape[1]:
        if grid_1ND.shape[1] == rows * columns:
            return position_1ND
        raise ValueError(f"a position embedding of {grid_1ND.shape[1]} patches is not square")
    if (rows, columns) == (old, old):
        return position_1ND
    scale = ((rows + META_OFFSET) / old, (columns + META_OFFSET) / old)
    grid_1Dhw = grid_1ND.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid_1Dhw = F.interpolate(grid_1Dhw, scale_factor=scale, mode="bicubic", antialias=False)
    return torch.cat([cls_11D, grid_1Dhw.flatten(2).transpose(1, 2).to(cls_11D.dtype)], dim=1)
