"""One teacher of the small-scale study: its measures, and surrogates of it under many partitions of depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from raptor.models.teacher import Teacher
from raptor.models.tied import PartitionEnsemble
from raptor.partition.maxcut import Matrix
from raptor.partition.quality import mean_adjacent, quality_of_labels
from raptor.studies.small_scale.partitions import Partition
from raptor.studies.small_scale.swap_metric import SwapScores
from raptor.studies.small_scale.swaps import Swap
from raptor.tasks.distillation.task import Distillation


class Partitions(Distillation):
    """Surrogates of one teacher under several partitions, each trained end to end, from the same passes.

    Nothing but the teacher's pass is shared, so that each becomes what it would become alone. The last validation
    also measures the teacher: its distance between layers and what that says of each partition, and what is kept of
    its accuracy when layers are swapped.

    Parameters
    ----------
    teacher, model, **kwargs
        As in :class:`~raptor.tasks.distillation.task.Distillation`.
    partitions
        Those of the model's students, in order.
    best
        Labels of the max-cut partition for each number of phases.
    distance
        Of the teacher's layers, ``(L, L)``.
    swaps
        Layer swaps to try on the teacher.
    tags
        Plain data to keep with the results, by which a report groups them.
    """

    def __init__(
        self,
        teacher: Teacher,
        model: PartitionEnsemble,
        partitions: Sequence[Partition],
        best: Mapping[int, Sequence[int]],
        distance: Matrix,
        swaps: Sequence[Swap],
        tags: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher=teacher, model=model, **kwargs)
        self.partitions, self.best, self.distance, self.tags = partitions, best, distance, dict(tags or {})
        self.swap_scores = SwapScores(swaps)
        self._swapped: list[dict[str, Any]] = []

    def update_metrics(self, acts: Mapping[int, Tensor], teacher_logits: Tensor, labels: Tensor) -> None:
        """Add a batch as :class:`Distillation` does; in the last validation, swap the teacher's layers too."""
        super().update_metrics(acts, teacher_logits, labels)
        if self.is_last_validation() and self.swap_scores.swaps:
            self.swap_scores.update(self.teacher, acts, teacher_logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log as :class:`Distillation` does, and keep the result of each swap."""
        super().on_validation_epoch_end()
        if self.is_last_validation() and self.swap_scores.swaps:
            self._swapped = [
                swap.about(self.distance) | {"top1": top1 if self.teacher_top1 else None, "agreement": agreement}
                for swap, (top1, agreement) in zip(
                    self.swap_scores.swaps, self.swap_scores.compute().tolist(), strict=True
                )
            ]
            self.swap_scores.reset()

    def describe(self) -> dict[str, Any]:
        """Describe what was trained, from which teacher."""
        return {
            "kind": "tied",
            "num_layers": self.teacher.num_layers,
            "trained": self.teacher.trained,
            "tags": self.tags,
            **self.about,
        }

    def details(self) -> dict[str, Any]:
        """R2 and cosine by student, token type and layer; measures of partitions and teacher; baselines; swaps."""
        measured = {
            p.name: p._asdict() | {"labels": list(p.labels), "measures": quality_of_labels(self.distance, p.labels)}
            for p in self.partitions
        }
        best = {
            str(k): {"labels": list(of), "measures": quality_of_labels(self.distance, of)}
            for k, of in self.best.items()
        }
        return {
            **super().details(),
            "partitions": measured,
            "distance": self.distance.tolist(),
            "teacher_measures": {"adjacent": mean_adjacent(self.distance), "maxcut": best},
            "baselines": self._baselines(),
            "swaps": self._swapped,
        }

    def _baselines(self) -> dict[str, dict[str, list[float]]]:
        """Return R2 of layer 0 held and of the mean image: the same for every partition."""
        floors = next(iter(self._floors.values()), {})
        names = {"embedding": "layer_0", "mean": "mean"}
        return {ours: floors[name]["r2"] for ours, name in names.items()} if floors else {}
