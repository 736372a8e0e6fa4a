"""Linear classification on frozen final tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from raptor.data.module import ImageData
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import freeze
from raptor.tasks.base import Task


class LinearProbing(Task):
    """Train one linear layer on ``[cls, mean patch]`` of a frozen backbone, teacher or surrogate alike.

    Parameters
    ----------
    backbone
        What to probe; frozen here.
    data
        Gives the number of classes.
    source
        What the backbone is, for results: plain data.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.
    """

    def __init__(self, backbone: Backbone, data: ImageData, source: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backbone = freeze(backbone)
        self.source = source
        self.probe = LinearProbe(backbone.layout.num_features(backbone.width), data.num_classes)
        self.top1 = MulticlassAccuracy(data.num_classes, average="micro")

    @property
    def frozen(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    @property
    def product(self) -> nn.Module:
        """The probe."""
        return self.probe

    def describe(self) -> dict[str, Any]:
        """What was probed."""
        backbone = self.backbone
        about = {"kind": "linear_probe", "backbone": self.source, "num_layers": backbone.num_layers}
        if isinstance(backbone, Surrogate):
            about |= {"k": backbone.k, "boundaries": backbone.boundaries}
        return about

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone.layout.features(self.backbone(images))
        return self.probe(features)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self._logits(images), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy."""
        images, labels = batch
        self.top1.update(self._logits(images), labels)
        self.log("val/top1", self.top1, prog_bar=True)
