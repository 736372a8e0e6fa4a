"""Train a ViT to classify: the small teachers."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.teacher import Teacher
from raptor.tasks.base import Task


class Classifier(Task):
    """Cross-entropy training of a whole ViT.

    For stochastic depth see ``drop_path`` of :func:`~raptor.models.pretrained.build_teacher`.

    Parameters
    ----------
    teacher
        The ViT to train.
    data
        Gives the number of classes.
    label_smoothing
        Share of the target spread over all classes, 0..1.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.
    """

    def __init__(self, teacher: Teacher, data: ImageData, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if teacher.num_classes != data.num_classes:
            key, expected = "teacher.options.num_classes", f"{data.num_classes}, the classes of data={data.name}"
            raise ConfigError.of(key, teacher.num_classes, expected, f"set {key}={data.num_classes}")
        self.teacher, self.label_smoothing = teacher, label_smoothing
        self.top1 = MulticlassAccuracy(data.num_classes, average="micro")

    @property
    def product(self) -> nn.Module:
        """The trained teacher."""
        return self.teacher

    def describe(self) -> dict[str, Any]:
        """Describe what was trained."""
        return {"kind": "teacher", "num_layers": self.teacher.num_layers, "vit": self.teacher.spec.name}

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch."""
        images, labels = batch
        loss = self._loss(self.teacher.classify(images), labels)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy and loss."""
        images, labels = batch
        logits = self.teacher.classify(images)
        self.top1.update(logits, labels)
        self.log("val/loss", self._loss(logits, labels), batch_size=len(labels), sync_dist=True)
        self.log("val/top1", self.top1, prog_bar=True)
