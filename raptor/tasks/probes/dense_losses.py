"""Losses over maps that are many times larger than what they are computed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone

ALL = (slice(None), slice(None))  # rows and columns
MAP_VALUES = 2**22  # held at a time, unless a single map has more


class _AtOnce(torch.autograd.Function):
    """Losses of rows whose gradient is taken on the spot, so that none of what they were computed from is kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
        """One loss for each row."""
        with torch.enable_grad():
            rows = rows.detach().requires_grad_()
            values = losses(rows)
            (gradient,) = torch.autograd.grad(values.sum(), rows)
        ctx.save_for_backward(gradient)
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient that was taken, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].view(-1, *[1] * (gradient.ndim - 1)), None


def row_losses(losses: Callable[[Tensor, Tensor], Tensor], rows: Tensor, map_values: int) -> Tensor:
    """One loss for each row, a few rows at a time, without keeping their maps for the backward pass.

    Parameters
    ----------
    losses
        Of rows ``(n, ...)`` and their numbers ``(n,)``, the losses ``(n,)``; that of a row may depend on no other.
    rows
        What maps are computed from, ``(N, ...)``.
    map_values
        Number of values in the maps of one row; as many rows go together as have :data:`MAP_VALUES`.

    Returns
    -------
    Tensor
        Losses ``(N,)``, differentiable once.
    """
    if not len(rows):
        return rows.flatten(1).sum(1)
    numbers = torch.arange(len(rows), device=rows.device)
    parts = (part.split(max(1, MAP_VALUES // map_values)) for part in (rows, numbers))
    if not torch.is_grad_enabled():
        return torch.cat([losses(*part) for part in zip(*parts, strict=True)])
    return torch.cat([_AtOnce.apply(part, lambda x, n=n: losses(x, n)) for part, n in zip(*parts, strict=True)])


def check_loss_stride(stride: int, backbone: Backbone) -> int:
    """The stride, if it is one.

    Raises
    ------
    ConfigError
        If it is not between 1 and a patch: every patch must have a say in every step.
    """
    _, *size = backbone.input_shape
    if not 1 <= stride <= (most := min(side // patches for side, patches in zip(size, backbone.grid, strict=True))):
        raise ConfigError(f"task.loss_stride={stride} is in pixels: from 1 to a patch's {most}")
    return stride


def lattice(size: Sequence[int], stride: int, step: int) -> tuple[slice, slice]:
    """Every ``stride``-th row and column of a picture; within ``stride ** 2`` steps every pixel has its turn once.

    Parameters
    ----------
    size
        Height and width in pixels.
    stride
        1 takes all pixels.
    step
        Number of the step.
    """
    row, column = divmod(step % stride**2, stride)
    return slice(row, size[0], stride), slice(column, size[1], stride)


def bilinear_at(grid_NhwC: Tensor, size: Sequence[int], at: tuple[slice, slice] = ALL) -> Tensor:
    """Values of a map, upsampled bilinearly to ``size``, at some of its rows and columns alone: ``(N, H, W, C)``.

    Equals ``F.interpolate`` with channels moved to the end, which is where a softmax over them is fastest.
    """
    N, h, w, C = grid_NhwC.shape
    if (h, w) == tuple(size):
        return grid_NhwC.float()[:, at[0], at[1]]
    with torch.autocast(grid_NhwC.device.type, enabled=False):
        rows, columns = (
            bilinear_weights(*n, grid_NhwC)[part] for n, part in zip(((size[0], h), (size[1], w)), at, strict=True)
        )
        x_NHwC = torch.matmul(rows, grid_NhwC.float().reshape(N, h, w * C)).view(-1, w, C)
        return torch.matmul(columns, x_NHwC).view(N, len(rows), len(columns), C)


def bilinear_weights(fine: int, coarse: int, like: Tensor) -> Tensor:
    """What coarse points weigh in fine ones, ``(fine, coarse)``."""
    eye = torch.eye(coarse, device=like.device)[None, None]
    return F.interpolate(eye, size=(fine, coarse), mode="bilinear", align_corners=False)[0, 0]


def pixel_cross_entropy(logp: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Cross-entropy of each pixel, 0 where its label is ``ignored``, from log-probabilities ``(..., C)``."""
    apart = F.nll_loss(logp.flatten(0, -2), labels.flatten(), ignore_index=ignored, reduction="none")
    return apart.view(labels.shape)
