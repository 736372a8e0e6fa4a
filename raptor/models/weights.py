"""Weights of a model: put in place all or none, and position embeddings resized."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError, ModelFileError
from raptor.models.attention import num_offsets, resize_bias

META_OFFSET = 0.1  # of DINOv2 without registers, to the size of the new grid


def fill(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a model, all or none.

    Raises
    ------
    ModelFileError
        If names or shapes do not match; the model is then unchanged.
    """
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("too many", extra))
        if names
    ] + sorted(shapes)[:3]
    if problems:
        raise ModelFileError(
            f"{where}: expected the weights of this model ({'; '.join(problems)}). Fix: set the options of the model "
            "that made it."
        )
    model.load_state_dict(state)


def fit_positions(vit: VisionTransformer, name: str, position_1ND: Tensor, where: str, *, same_grid: bool) -> Tensor:
    """Resize a position embedding to the grid of a model as timm or Meta do, unless it is of the same grid.

    Raises
    ------
    ModelFileError
        If it is of another grid, which is not square.
    """
    if same_grid or position_1ND.shape[2] != vit.embed_dim:
        return position_1ND  # of another width: fill reports that, with all else that does not fit
    rows, columns = vit.patch_embed.grid_size
    prefix = 0 if getattr(vit, "no_embed_class", False) else vit.num_prefix_tokens
    old = round((position_1ND.shape[1] - prefix) ** 0.5)
    if old * old != position_1ND.shape[1] - prefix:
        held = f"it has {position_1ND.shape[1] - prefix} patches"
        raise ModelFileError(
            f"{where}: expected a position embedding of a square grid ({held}), to be resized to {rows}x{columns}. "
            "Fix: set the teacher.options.img_size of the model that made it."
        )
    if follows_meta(name):
        return resize_position_meta(position_1ND, rows, columns)
    return resample_abs_pos_embed(position_1ND, [rows, columns], num_prefix_tokens=prefix)


def fit_biases(tensors: Mapping[str, Tensor], grid: tuple[int, int], where: str) -> dict[str, Tensor]:
    """Resize the relative position biases among weights, of a square grid, to the grid of a model, as timm does.

    Raises
    ------
    ModelFileError
        If their grid is not square.
    """
    fitted = dict(tensors)
    for name, table in tensors.items():
        if name.endswith("relative_position_bias_table"):
            side = (round((len(table) - 3) ** 0.5) + 1) // 2
            if num_offsets((side, side)) != len(table):
                raise ModelFileError(
                    f"{where}: expected relative position biases of a square grid ({name} has {len(table)}), to be "
                    f"resized to {grid[0]}x{grid[1]}. Fix: set the teacher.options.img_size of the model that made it."
                )
            fitted[name] = resize_bias(table, (side, side), grid)
    return fitted


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
        raise ConfigError.of("patches", grid_1ND.shape[1], "a square number", "give the embedding of a square grid")
    if (rows, columns) == (old, old):
        return position_1ND
    scale = ((rows + META_OFFSET) / old, (columns + META_OFFSET) / old)
    grid_1Dhw = grid_1ND.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid_1Dhw = F.interpolate(grid_1Dhw, scale_factor=scale, mode="bicubic", antialias=False)
    return torch.cat([cls_11D, grid_1Dhw.flatten(2).transpose(1, 2).to(cls_11D.dtype)], dim=1)
