"""Influence of stretches of layers: how much their blocks turn the tokens.

Block influence is ShortGPT's (Men et al., arXiv 2403.03853): one minus the mean cosine between the tokens before and
after a block. Over several blocks it is the measure by which ReplaceMe (Shopkhoev et al., arXiv 2505.02819) chooses
what to replace by a linear map. Shapes: B images, N tokens, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


class Influence:
    """Sum up cosines between the tokens of layers at some distance, over batches.

    Parameters
    ----------
    span
        Blocks between the two layers; 1 is block influence.
    """

    def __init__(self, span: int = 1) -> None:
        self.span, self.tokens, self.total = span, 0, torch.zeros(0, dtype=torch.float64)

    def update(self, layers: Iterable[Tensor]) -> None:
        """Add a batch: the layers 0..L, each ``(B, N, D)``."""
        recent: list[Tensor] = []
        sums = []
        for layer, x_BND in enumerate(layers):
            if layer == 0:
                self.tokens += x_BND.shape[0] * x_BND.shape[1]
            recent.append(x_BND.double())
            if len(recent) > self.span:
                sums.append(F.cosine_similarity(recent.pop(0), recent[-1], dim=-1).sum())
        batch = torch.stack(sums).cpu()
        self.total = self.total + batch if len(self.total) else batch

    def compute(self) -> list[float]:
        """Return the influence of the blocks i+1..i+span for each layer i that they can start from."""
        return (1 - self.total / self.tokens).tolist()
