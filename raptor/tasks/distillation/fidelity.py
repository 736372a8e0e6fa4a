"""How well a rollout follows the teacher, by layer and token type, streamed over batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection, R2Score
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


class Baselines(Metric):
    """R2, as in :class:`Fidelity`, of two predictions that follow nothing, streamed over batches.

    ``embedding`` holds layer 0 at every layer; ``mean`` predicts, at each token and channel of a layer, the mean over
    the very images that are judged, which no other constant beats. What a surrogate is worth lies above both.

    Parameters
    ----------
    layout
        Token layout.
    num_layers
        Layers L of the teacher.
    width
        Channels D.
    """

    full_state_update = False
    images: Tensor
    total: Tensor
    squares: Tensor
    moved: Tensor

    def __init__(self, layout: TokenLayout, num_layers: int, width: int) -> None:
        super().__init__()
        self.layout = layout
        N = layout.num_tokens
        for name, shape in {
            "images": (),
            "total": (num_layers, N, width),
            "squares": (num_layers, N),
            "moved": (num_layers, N),
        }.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add a batch: layers 0..L of the teacher, each ``(B, N, D)``."""
        first = layers[0].double()
        self.images += len(first)
        for index, layer in enumerate(layers[1:]):
            x = layer.double()
            self.total[index] += x.sum(dim=0)
            self.squares[index] += x.square().sum(dim=(0, 2))
            self.moved[index] += (x - first).square().sum(dim=(0, 2))

    def compute(self) -> dict[str, dict[str, list[float]]]:
        """``{"embedding": {type: [L values]}, "mean": {type: [L values]}}``."""
        found: dict[str, dict[str, list[float]]] = {"embedding": {}, "mean": {}}
        for kind in self.layout.types:
            of = self.layout.slice(kind)
            total, squares = self.total[:, of], self.squares[:, of].sum(dim=1)
            variation = squares - total.sum(dim=(1, 2)).square() / (self.images * total[0].numel())
            around_mean = squares - total.square().sum(dim=(1, 2)) / self.images
            found["embedding"][kind] = (1 - self.moved[:, of].sum(dim=1) / variation).tolist()
            found["mean"][kind] = (1 - around_mean / variation).tolist()
        return found


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
