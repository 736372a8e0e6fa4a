"""Classify every pixel from frozen patch tokens.

Shapes: B images, N tokens of width D, P patches, K heads, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from raptor.data.ade20k import IGNORED
from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.dense_losses import bilinear_at, check_loss_stride, lattice, pixel_cross_entropy, row_losses
from raptor.tasks.probes.features import Features


class SegmentationProbing(Probe):
    """Classify pixels by linear layers on patch tokens, logits upsampled to the labels: the paper's probe on ADE20K.

    mIoU is pooled over all pixels of the set. Pixels labelled 255 are ignored. Classes that occur neither in labels nor
    in predictions are left out of the mean.

    Parameters
    ----------
    backbone, data, source
        As in :class:`~raptor.tasks.probes.base.Probe`.
    stride
        Step between windows as a share of the window, for pictures larger than the model's input
        (``data.evaluation=sliding``).
    loss_stride
        The loss counts every ``loss_stride``-th row and column of the labels, others at each step in turn; 1, as
        in the paper, counts all.
    **kwargs
        As in :class:`~raptor.tasks.probes.base.Probe`.
    """

    target, score = "labels", "miou"

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        stride: float = 2 / 3,
        loss_stride: int = 1,
        **kwargs: Any,
    ) -> None:
        if not 0 < stride <= 1:
            raise ConfigError.of("task.stride", stride, "a share of the window > 0 and <= 1", "set it to 0.667")
        self.width, self.num_classes, self.stride = backbone.width, data.num_classes, stride
        self.loss_stride = check_loss_stride(loss_stride, backbone)
        super().__init__(backbone=backbone, data=data, source=source, **kwargs)
        self.sliding = getattr(data, "evaluation", None) == "sliding"
        self.cache = self.cache and not self.sliding

    def make_head(self) -> LinearProbe:
        """Make one linear layer for all patches."""
        return LinearProbe(self.width, self.num_classes)

    def make_scores(self) -> nn.Module:
        """Make mIoU and pixel accuracy."""
        options: dict[str, Any] = {"num_classes": self.num_classes, "ignore_index": IGNORED, "validate_args": False}
        return MetricCollection(
            {
                "miou": MulticlassJaccardIndex(average="macro", **options),
                "pixel_accuracy": MulticlassAccuracy(average="micro", **options),
            },
            compute_groups=False,
        )

    def features(self, tokens_BND: Tensor) -> Tensor:
        """Take the patch tokens ``(B, P, D)``."""
        return self.backbone.layout.select(tokens_BND, "patches")

    def upsample(self, logits_BPC: Tensor, size: Sequence[int]) -> Tensor:
        """Upsample logits of patches to a map ``(B, C, H, W)``."""
        grid = logits_BPC.float().transpose(1, 2).unflatten(2, self.backbone.grid)
        return F.interpolate(grid, size=tuple(size), mode="bilinear", align_corners=False)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropy of each head over labelled pixels; 0 if there is none."""
        size = (targets.shape[-2], targets.shape[-1])
        at = lattice(size, self.loss_stride, self.global_step)
        labels = _labels(targets)[(..., *at)]

        def sums(logits_NPC: Tensor, numbers: Tensor) -> Tensor:
            fine = bilinear_at(logits_NPC.unflatten(1, self.backbone.grid), size, at)
            return pixel_cross_entropy(fine.log_softmax(-1), labels[numbers % len(labels)], IGNORED).sum((1, 2))

        of_maps = row_losses(sums, logits.flatten(0, 1), self.num_classes * labels.shape[1:].numel())
        return of_maps.view(logits.shape[:2]).sum(1) / (labels != IGNORED).sum().clamp(min=1)

    def predict(self, head: LinearProbe, logits: Tensor, targets: Tensor) -> Tensor:
        """Upsample logits to the size of the labels."""
        return self.upsample(logits, targets.shape[-2:])

    def counted(self, targets: Tensor) -> Tensor:
        """Mark the labelled pixels."""
        return targets != IGNORED

    def mirrored(self, prediction: Tensor) -> Tensor:
        """Mirror a map of logits."""
        return prediction.flip(-1)

    def predictions(self, images: Tensor | Features, heads: Sequence[LinearProbe], targets: Tensor) -> list[Tensor]:
        """Predict logits at the size of the labels, by windows where pictures are larger than the input."""
        window = self.backbone.input_shape[1:]
        if isinstance(images, Features) or not self.sliding:
            return super().predictions(images, heads, targets)
        totals = [images.new_zeros(len(images), self.num_classes, *images.shape[-2:]) for _ in heads]
        count = images.new_zeros(images.shape[-2:])
        for top, left in windows(images.shape[-2:], window, self.stride):
            area = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            count[area] += 1
            for total, logits in zip(totals, self.logits(heads, self.extract(images[area])), strict=True):
                total[area] += self.upsample(logits, window)
        size = tuple(targets.shape[-2:])
        return [F.interpolate(total / count, size=size, mode="bilinear", align_corners=False) for total in totals]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the scores."""
        images, targets = batch
        super().validation_step((images, _labels(targets)), batch_idx, dataloader_idx)


def _labels(targets: Tensor) -> Tensor:
    """Convert labels, with or without a channel, to integers ``(B, H, W)``."""
    return targets.long().flatten(0, -3)


def windows(size: Sequence[int], window: Sequence[int], stride: float) -> list[tuple[int, int]]:
    """List the top left corners of windows that cover an image, the last ones flush with its edges.

    Parameters
    ----------
    size, window
        Height and width in pixels.
    stride
        Step as a share of the window.

    Raises
    ------
    ConfigError
        If the image is smaller than a window.
    """
    if any(full < part for full, part in zip(size, window, strict=True)):
        expected = f"pictures of at least {list(window)}, the model's input; one has {list(size)}"
        raise ConfigError.of("data.evaluation", "sliding", expected, "set data.evaluation=squash")
    corners = []
    for full, part in zip(size, window, strict=True):
        steps = -(-(full - part) // max(1, round(stride * part)))
        corners.append(torch.linspace(0, full - part, steps + 1).round().int().tolist() if steps else [0])
    return [(top, left) for top in corners[0] for left in corners[1]]
