"""Layer swaps: accuracy of a teacher whose layers replace each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from raptor.models.teacher import Teacher
from raptor.studies.small_scale.swaps import Swap


def reordered(teacher: Teacher, acts: Mapping[int, Tensor], order: Sequence[int]) -> Tensor:
    """Tokens of layer L when other blocks of the teacher run in place of its own.

    Parameters
    ----------
    teacher
        Any teacher.
    acts
        Its layers 0..L, ``(B, N, D)`` each, from which the run begins where the order first differs.
    order
        Layer 1..L whose block runs at each of the depths 1..L.

    Returns
    -------
    Tensor
        ``(B, N, D)``, before the final norm; in the teacher's own order, its layer L itself.
    """
    first = next((depth for depth, layer in enumerate(order) if layer != depth + 1), len(order))
    x = acts[first]
    for layer in order[first:]:
        x = teacher.apply_block(x, layer)
    return x


class SwapScores(Metric):
    """Top-1 and agreement with the intact teacher under each of several swaps, streamed over batches.

    Parameters
    ----------
    swaps
        What to replace by what.
    """

    full_state_update = False
    right: Tensor
    images: Tensor

    def __init__(self, swaps: Sequence[Swap]) -> None:
        super().__init__()
        self.swaps = list(swaps)
        self.add_state("right", torch.zeros(len(self.swaps), 2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, teacher: Teacher, acts: Mapping[int, Tensor], teacher_logits: Tensor, labels: Tensor) -> None:
        """Add a batch: the teacher's layers 0..L ``(B, N, D)``, its logits ``(B, classes)``, labels ``(B,)``."""
        predicted = teacher_logits.argmax(dim=1)
        for i, swap in enumerate(self.swaps):
            guess = teacher.head(reordered(teacher, acts, swap.order(teacher.num_layers))).argmax(dim=1)
            self.right[i] += torch.stack([(guess == labels).sum(), (guess == predicted).sum()])
        self.images += len(labels)

    def compute(self) -> Tensor:
        """Top-1 and agreement of each swap, ``(swaps, 2)``."""
        return self.right.double() / self.images
