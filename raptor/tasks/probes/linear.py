"""Linear classification on frozen final tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """Linear layers on ``[cls, mean patch]``: the paper's probe on ImageNet-1k.

    Parameters
    ----------
    backbone, data, source
        As in :class:`~raptor.tasks.probes.base.Probe`.
    start
        ``random``, or ``head`` to start from the linear head that the backbone carries (``teacher.head``).
    checks
        Probes without a seed to run beside it at the end: ``knn``, ``ridge``. They cost a pass over the
        training images without augmentation.
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
            raise ConfigError(f"task.checks={list(checks)}: {unknown.pop()!r} is unknown; choose among {list(CHECKS)}")
        if start not in STARTS:
            raise ConfigError(f"task.start={start!r} is unknown; choose {' or '.join(STARTS)}")
        self.num_features = backbone.layout.num_features(backbone.width)
        self.num_classes, self.checks = data.num_classes, tuple(checks)
        head = backbone.shell.linear_head
        if start == "head" and (head is None or head.num_classes != data.num_classes):
            has = "no linear head" if head is None else f"one of {head.num_classes} classes"
            raise ConfigError(
                f"task.start=head, but the backbone carries {has} for the {data.num_classes} classes of "
                f"data={data.name}: set teacher.head, or task.start=random"
            )
        if start == "head" and kwargs.get("head_seeds", 1) > 1:
            raise ConfigError("task.start=head starts every head from the same weights: set task.head_seeds=1")
        self._start = head.state_dict() if start == "head" and head is not None else None
        super().__init__(backbone=backbone, data=data, source=source, **kwargs)

    def make_head(self) -> LinearProbe:
        """One linear layer."""
        head = LinearProbe(self.num_features, self.num_classes)
        if self._start is not None:
            head.load_state_dict(self._start)
        return head

    def make_scores(self) -> nn.Module:
        """Top-1 accuracy."""
        return MetricCollection({"top1": MulticlassAccuracy(self.num_classes, average="micro")})

    def select(self, tokens_BND: Tensor) -> Tensor:
        """``[cls, mean patch]``."""
        return self.backbone.layout.features(tokens_BND)

    def losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; 0 for an empty batch."""
        apart = F.cross_entropy(raw.float().flatten(0, 1), targets.repeat(len(raw)), reduction="none")
        return apart.view(raw.shape[:2]).sum(1) / max(1, len(targets))

    def answer(self, head: LinearProbe, raw: Tensor, targets: Tensor) -> Tensor:
        """Logits."""
        return raw.float()

    def _write_down(self) -> None:
        super()._write_down()
        if self.checks:
            pairs = [self._kept(split) for split in ("train", "val")]
            for name in self.checks:
                self.log(f"val/{name}_top1", CHECKS[name](*pairs))

    def _kept(self, split: str) -> tuple[Tensor, Tensor]:
        kept = self.data.train_samples if split == "train" else self.data.eval_samples.get(split)
        return (kept.features, kept.targets) if kept is not None else self.features_of(self.data.images(split), split)
