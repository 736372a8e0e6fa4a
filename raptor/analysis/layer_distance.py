"""How far layers are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from raptor.models.tokens import TokenLayout

DEFAULT_TYPES = ("cls", "patches")


class LayerDistance:
    """Mean cosine distance between the layers of a network, streamed over batches.

    For each image and token type the tokens of the type are averaged (the class token is itself), and the
    distance of two layers is one minus the cosine of these vectors; it is averaged over types and images. The
    default types are those of the official notebook: class token and mean patch, registers left out.

    Parameters
    ----------
    layout
        Token layout of the activations.
    types
        Token types to average over.

    Raises
    ------
    ConfigError
        If the layout lacks one of the types.
    """

    def __init__(self, layout: TokenLayout, types: Sequence[str] = DEFAULT_TYPES) -> None:
        layout.require(types, "tokens")
        self.layout, self.types = layout, tuple(types)
        self.images = 0
        self._sum: Tensor | None = None

    def update(self, acts_BLND: Tensor) -> None:
        """Add a batch of activations of the layers 1..L, ``(B, L, N, D)``."""
        for kind in self.types:
            v_BLD = F.normalize(self.layout.pool(acts_BLND, kind).double(), dim=-1)
            similarity_LL = torch.einsum("bld,bmd->lm", v_BLD, v_BLD)
            self._sum = similarity_LL if self._sum is None else self._sum + similarity_LL
        self.images += len(acts_BLND)

    def compute(self) -> NDArray:
        """Distance matrix ``(L, L)``: symmetric, zero diagonal, 0..2.

        Raises
        ------
        ValueError
            If no batch was added.
        """
        if self._sum is None:
            raise ValueError("no activations were added")
        D = 1 - (self._sum / (self.images * len(self.types))).cpu()
        D = ((D + D.T) / 2).clamp_(min=0).fill_diagonal_(0)
        return D.numpy()
