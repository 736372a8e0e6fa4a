"""How well a rollout follows the teacher, by layer and token type, streamed over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, R2Score
from torchmetrics.classification import MulticlassAccuracy

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
        keys = [(kind, layer) for kind in layout.types for layer in range(num_layers)]
        self.r2 = MetricCollection({f"{kind}_{layer}": R2Score() for kind, layer in keys}, compute_groups=False)
        self.cosine = MetricCollection({f"{kind}_{layer}": MeanMetric() for kind, layer in keys}, compute_groups=False)
        self.r2.set_dtype(torch.float64)  # sums over a whole validation set do not fit float32

    def update(self, preds: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        """Add a batch: n predicted layers and n layers of the teacher, each ``(B, N, D)``."""
        for layer, (pred, target) in enumerate(zip(preds, targets, strict=True)):
            for kind in self.layout.types:
                y, x = (self.layout.select(tokens, kind).float() for tokens in (pred, target))
                self.r2[f"{kind}_{layer}"].update(y.double().flatten(), x.double().flatten())
                self.cosine[f"{kind}_{layer}"].update(F.cosine_similarity(y, x, dim=-1))

    def compute(self) -> dict[str, dict[str, list[float]]]:
        """``{"r2": {type: [n values]}, "cosine": {type: [n values]}}``."""
        return {
            measure: {
                kind: [float(metrics[f"{kind}_{layer}"].compute()) for layer in range(self.num_layers)]
                for kind in self.layout.types
            }
            for measure, metrics in (("r2", self.r2), ("cosine", self.cosine))
        }

    def reset(self) -> None:
        """Forget all batches."""
        self.r2.reset()
        self.cosine.reset()


class PieceScores(nn.Module):
    """All scores of one piece of a surrogate: fidelity, and top-1 through the teacher's head.

    Parameters
    ----------
    layout
        Token layout.
    num_layers
        Layers that the piece produces.
    num_classes
        Outputs of the teacher's head; None where the labels are not its classes.
    """

    def __init__(self, layout: TokenLayout, num_layers: int, num_classes: int | None) -> None:
        super().__init__()
        self.fidelity = Fidelity(layout, num_layers)
        self.accuracy = MetricCollection(
            {name: MulticlassAccuracy(num_classes, average="micro") for name in ("top1", "agreement")}
            if num_classes
            else {},
            compute_groups=False,
        )

    def update_accuracy(self, logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> None:
        """Add a batch of logits ``(B, classes)``: top-1, and agreement with the teacher's own prediction."""
        self.accuracy["top1"].update(logits, labels)
        self.accuracy["agreement"].update(logits, teacher_logits.argmax(dim=1))

    def compute(self) -> tuple[dict[str, Tensor], dict[str, dict[str, list[float]]]]:
        """Accuracies and the curves over layers; forgets all batches."""
        accuracies, curves = self.accuracy.compute() if len(self.accuracy) else {}, self.fidelity.compute()
        self.accuracy.reset()
        self.fidelity.reset()
        return accuracies, curves
