"""Compute losses over maps that are many times larger than the logits they are upsampled from.

Shapes: N maps, h and w rows and columns before upsampling, H and W after, C classes or bins.
"""

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
    """Compute losses of rows and their gradient at once, so that no intermediate map is kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, losses: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute one loss for each row, and keep its gradient."""
        with torch.enable_grad():
            rows = rows.detach().requires_grad_()
            values = losses(rows)
            (gradient,) = torch.autograd.grad(values.sum(), rows)
        ctx.save_for_backward(gradient)
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Scale the gradient that was kept."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].view(-1, *[1] * (gradient.ndim - 1)), None


def row_losses(losses: Callable[[Tensor, Tensor], Tensor], rows: Tensor, map_values: int) -> Tensor:
    """Compute one loss for each row, a few rows at a time, without keeping their maps for the backward pass.

    Parameters
    ----------
    losses
        Function from rows ``(n, ...)`` and their indices ``(n,)`` to losses ``(n,)``; each depends on its row alone.
    rows
        Values that maps are computed from, ``(N, ...)``.
    map_values
        Number of values in the maps of one row; as many rows go together as have :data:`MAP_VALUES`.

    Returns
    -------
    Tensor
        Losses ``(N,)``, differentiable once.
    """
    if not len(rows):
        return rows.flatten(1).sum(1)
    indices = torch.arange(len(rows), device=rows.device)
    parts = (part.split(max(1, MAP_VALUES // map_values)) for part in (rows, indices))
    if not torch.is_grad_enabled():
        return torch.cat([losses(*part) for part in zip(*parts, strict=True)])
    return torch.cat([_AtOnce.apply(part, lambda x, n=n: losses(x, n)) for part, n in zip(*parts, strict=True)])


def check_loss_stride(stride: int, backbone: Backbone) -> int:
    """Check the stride of a loss: every patch must enter every step.

    Raises
    ------
    ConfigError
        If it is not between 1 and the side of a patch.
    """
    _, *size = backbone.input_shape
    if not 1 <= stride <= (most := min(side // patches for side, patches in zip(size, backbone.grid, strict=True))):
        expected = f"integer from 1 to {most}, the side of a patch in pixels"
        raise ConfigError.of("task.loss_stride", stride, expected, "set task.loss_stride=1")
    return stride


def lattice(size: Sequence[int], stride: int, step: int) -> tuple[slice, slice]:
    """Select every ``stride``-th row and column of a picture; in ``stride ** 2`` steps each pixel comes once.

    Parameters
    ----------
    size
        Height and width in pixels.
    stride
        Distance of rows and columns; 1 takes all pixels.
    step
        Index of the step.
    """
    row, column = divmod(step % stride**2, stride)
    return slice(row, size[0], stride), slice(column, size[1], stride)


def bilinear_at(grid_NhwC: Tensor, size: Sequence[int], at: tuple[slice, slice] = ALL) -> Tensor:
    """Upsample a map bilinearly to ``size``, at some rows and columns alone: ``(N, H, W, C)``.

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
    """Compute the weights of coarse points in fine ones, ``(fine, coarse)``."""
    eye = torch.eye(coarse, device=like.device)[None, None]
    return F.interpolate(eye, size=(fine, coarse), mode="bilinear", align_corners=False)[0, 0]


def pixel_cross_entropy(logp: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Compute the cross-entropy of each pixel from log-probabilities ``(..., C)``; 0 where its label is ``ignored``."""
    by_pixel = F.nll_loss(logp.flatten(0, -2), labels.flatten(), ignore_index=ignored, reduction="none")
    return by_pixel.view(labels.shape)
