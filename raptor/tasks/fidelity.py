"""How well a rollout follows the teacher, by layer and token type, streamed over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, R2Score

from raptor.models.tokens import TokenLayout


class Fidelity(nn.Module):
    """R2 and cosine to the teacher.

    For one layer and token type, with teacher values x (all images, tokens and channels) and predictions y::

        R2 = 1 - sum((x - y)^2) / sum((x - mean(x))^2)

    with one scalar mean. The teacher is the reference; the official code has the prediction in its place and
    pools over layers, which makes R2 nearly that of the last layer.

    Parameters
    ----------
    layout
        Token layout.
    num_layers
        Number n of layers that are compared.
    """

    def __init__(self, layout: TokenLayout, num_layers: int) -> None:
        super().__init__()
        self.layout, self.num_layers = layout, num_layers
        self.r2 = MetricCollection({kind: R2Score(multioutput="raw_values") for kind in layout.types})
        self.cosine = nn.ModuleDict(
            {kind: nn.ModuleList(MeanMetric() for _ in range(num_layers)) for kind in layout.types}
        )
        self.r2.set_dtype(torch.float64)  # sums over a whole validation set do not fit float32

    def update(self, preds: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add a batch: n predicted layers and n layers of the teacher, each ``(B, N, D)``."""
        for kind in self.layout.types:
            pairs = [
                (self.layout.select(p, kind).float(), self.layout.select(t, kind).float())
                for p, t in zip(preds, targets, strict=True)
            ]
            columns = [torch.stack([x.flatten() for x in side], dim=1).double() for side in zip(*pairs, strict=True)]
            self.r2[kind].update(*columns)
            for metric, (pred, target) in zip(self.cosine[kind], pairs, strict=True):  # type: ignore[call-overload]
                metric.update(F.cosine_similarity(pred, target, dim=-1))

    def compute(self) -> dict[str, dict[str, list[float]]]:
        """``{"r2": {type: [n values]}, "cosine": {type: [n values]}}``."""
        r2 = {kind: self.r2[kind].compute().reshape(-1).tolist() for kind in self.layout.types}
        cosine = {
            kind: [float(metric.compute()) for metric in self.cosine[kind]]  # type: ignore[union-attr]
            for kind in self.layout.types
        }
        return {"r2": r2, "cosine": cosine}

    def reset(self) -> None:
        """Forget all batches."""
        self.r2.reset()
        for metrics in self.cosine.values():
            for metric in metrics:  # type: ignore[union-attr]
                metric.reset()
