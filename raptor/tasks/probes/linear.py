"""Classify images by linear heads on frozen final tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.knn_ridge import CHECKS

STARTS = ("random", "head")


class LinearProbing(Probe):
    """Classify images by linear layers on ``[cls, mean patch]``: the paper's probe on ImageNet-1k.

    Parameters
    ----------
    backbone, data, source
        As in :class:`~raptor.tasks.probes.base.Probe`.
    start
        ``random``, or ``head`` to start from the linear head that the backbone carries (``teacher.head``).
    checks
        Closed-form probes to run beside it at the end: ``knn``, ``ridge``. They cost a pass over the training images
        without augmentation.
    **kwargs
        As in :class:`~raptor.tasks.probes.base.Probe`.
    """

    target, score = "class", "top1"

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        start: str = "random",
        checks: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        if unknown := set(checks) - CHECKS.keys():
            expected = f"a list of {', '.join(CHECKS)}"
            raise ConfigError.of("task.checks", list(checks), expected, f"take {unknown.pop()} out")
        if start not in STARTS:
            raise ConfigError.of("task.start", start, " or ".join(STARTS), f"set task.start={STARTS[0]}")
        self.num_features = backbone.layout.num_features(backbone.width)
        self.num_classes, self.checks = data.num_classes, tuple(checks)
        head = backbone.shell.linear_head
        if start == "head" and (head is None or head.num_classes != data.num_classes):
            has = "no linear head" if head is None else f"one of {head.num_classes} classes"
            expected = f"a backbone with a head for the {data.num_classes} classes of data={data.name}; it has {has}"
            raise ConfigError.of("task.start", start, expected, "set teacher.head, or task.start=random")
        if start == "head" and kwargs.get("head_seeds", 1) > 1:
            expected = "1 with task.start=head, which gives every head the same first weights"
            raise ConfigError.of("task.head_seeds", kwargs["head_seeds"], expected, "set task.head_seeds=1")
        self._start = head.state_dict() if start == "head" and head is not None else None
        super().__init__(backbone=backbone, data=data, source=source, **kwargs)

    def make_head(self) -> LinearProbe:
        """Make one linear layer."""
        head = LinearProbe(self.num_features, self.num_classes)
        if self._start is not None:
            head.load_state_dict(self._start)
        return head

    def make_scores(self) -> nn.Module:
        """Make the top-1 accuracy."""
        return MetricCollection({"top1": MulticlassAccuracy(self.num_classes, average="micro")})

    def features(self, tokens_BND: Tensor) -> Tensor:
        """Join ``[cls, mean patch]``: ``(B, F)``."""
        return self.backbone.layout.features(tokens_BND)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy of each head; 0 for an empty batch."""
        by_image = F.cross_entropy(logits.float().flatten(0, 1), targets.repeat(len(logits)), reduction="none")
        return by_image.view(logits.shape[:2]).sum(1) / max(1, len(targets))

    def predict(self, head: LinearProbe, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the logits, which are scored as they are."""
        return logits.float()

    def counted(self, targets: Tensor) -> Tensor:
        """Mark every image."""
        return torch.ones_like(targets, dtype=torch.bool)

    def _record_selection(self) -> None:
        super()._record_selection()
        if self.checks:
            pairs = [self._features_of(split) for split in ("train", "val")]
            for name in self.checks:
                self.log(f"val/{name}_top1", CHECKS[name](*pairs))

    def _features_of(self, split: str) -> tuple[Tensor, Tensor]:
        kept = self.data.substitutes.get(split)
        return (
            (kept.features, kept.targets) if kept is not None else self.compute_features(self.data.images(split), split)
        )
