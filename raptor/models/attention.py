"""Self-attention of tied blocks, with the positions that a teacher's attention may have.

Shapes: B batch, N tokens, D width, H heads, d width of a head.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import resize_rel_pos_bias_table
from torch import Tensor, nn


@dataclass(frozen=True)
class RopeConfig:
    """Shape of a rotary embedding.

    Parameters
    ----------
    heads
        Heads that have an embedding of their own; 1 where all share one.
    tokens
        Number of tokens N.
    half
        Whether the halves of a head are rotated into each other, rather than neighbouring channels.
    """

    heads: int
    tokens: int
    half: bool


class Attention(nn.Module):
    """Multi-head self-attention with one fused kernel and its own qkv projection.

    Parameters
    ----------
    width, num_heads, rope, relative_bias
        As in :class:`~raptor.models.block.BlockConfig`.
    """

    rope: Tensor | None
    relative_index: Tensor

    def __init__(
        self,
        width: int,
        num_heads: int,
        rope: RopeConfig | None = None,
        relative_bias: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)
        self.rotates_halves = rope is not None and rope.half
        self.register_buffer("rope", None if rope is None else no_rotation(rope.heads, rope.tokens, width // num_heads))
        if relative_bias is None:
            self.relative_bias = None
        else:
            self.relative_bias = nn.Parameter(torch.zeros(num_offsets(relative_bias), num_heads))
            self.register_buffer("relative_index", relative_index(relative_bias), persistent=False)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Attend over the tokens: ``(B, N, D)`` to ``(B, N, D)``."""
        B, N, D = x_BND.shape
        qkv = self.qkv(x_BND).reshape(B, N, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.rope is not None:
            q, k = (rotate(x, self.rope, half=self.rotates_halves).type_as(v) for x in (q, k))
        bias_1HNN = None
        if self.relative_bias is not None:
            bias_1HNN = self.relative_bias[self.relative_index].permute(2, 0, 1)[None].type_as(q)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_1HNN)
        return self.proj(x.transpose(1, 2).reshape(B, N, D))


def no_rotation(heads: int, tokens: int, head_width: int) -> Tensor:
    """Return the rotary embedding that changes nothing: sines of 0, cosines of 1, ``(heads, tokens, 2d)``."""
    sines = torch.zeros(heads, tokens, head_width)
    return torch.cat([sines, sines + 1], dim=-1)


def rotate(x: Tensor, rope: Tensor, *, half: bool) -> Tensor:
    """Rotate queries or keys by their positions.

    Parameters
    ----------
    x
        ``(B, H, N, d)``.
    rope
        Sines, then cosines, ``(H or 1, N, 2d)``; each angle stands for both channels of its pair.
    half
        As in :class:`RopeConfig`.
    """
    sines, cosines = rope.chunk(2, dim=-1)
    if half:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosines + turned * sines


def num_offsets(grid: tuple[int, int]) -> int:
    """Return how many offsets between patches of a grid there are, with those from, to and of the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def relative_index(grid: tuple[int, int]) -> Tensor:
    """Return the number of the offset between any two tokens, cls and patches, as BEiT counts: ``(N, N)``."""
    rows, columns = grid
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    index = torch.empty(rows * columns + 1, rows * columns + 1, dtype=torch.long)
    down, right = row[:, None] - row + rows - 1, column[:, None] - column + columns - 1
    index[1:, 1:] = down * (2 * columns - 1) + right
    last = num_offsets(grid)
    index[0, 1:], index[1:, 0], index[0, 0] = last - 3, last - 2, last - 1
    return index


def resize_bias(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize biases of the offsets between patches, ``(offsets, H)``, to another grid, as timm does."""
    if old == new:
        return table
    known = {} if old[0] == old[1] else {"old_window_size": old}  # which timm 1.0.27 does not take
    shape = (num_offsets(new), table.shape[1])
    with warnings.catch_warnings():
        for message in ("torch.searchsorted", "Using a non-tuple sequence"):  # within timm's interpolation
            warnings.filterwarnings("ignore", message=message)
        return resize_rel_pos_bias_table(table.detach(), new_window_size=new, new_bias_shape=shape, **known)
