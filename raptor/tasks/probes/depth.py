"""Estimate depth in metres from frozen tokens.

Shapes: B images, N tokens of width D, P patches, K heads; H and W are rows and columns of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsolutePercentageError, MeanMetric, MeanSquaredError, MetricCollection

from raptor.data.module import ImageData
from raptor.data.nyuv2 import SIZE
from raptor.data.nyuv2 import padding as offsets
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.heads import DepthProbe, LinearProbe
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.dense_losses import (
    ALL,
    bilinear_at,
    bilinear_weights,
    check_loss_stride,
    lattice,
    pixel_cross_entropy,
    row_losses,
)

EIGEN = (45, 471, 41, 601)  # rows and columns of 480x640 that count, after Eigen et al. 2014
IGNORED = -100  # bin of pixels that have none
SHIFT = 1e-3  # metres, so that logarithms stay finite
VARIANCE = 0.85  # share of the squared mean that the scale-invariant loss takes off
SCALE_INVARIANT = 10.0  # its weight beside the cross-entropy
PADDINGS, UNKNOWN_BINS = ("cut", "stretch"), ("ignored", "farthest")


class DepthProbing(Probe):
    """Sort patches into depth bins by linear layers on ``[patch, cls]``: the paper's probe on NYUv2.

    The logits are upsampled; depth is the expectation under their softmax, upsampled to the picture.
    The loss is ten times the scale-invariant one at the picture's size, and cross-entropy on the bins at the
    upsampled grid, where each point takes the depth nearest to it.

    Parameters
    ----------
    backbone, data, source
        As in :class:`~raptor.tasks.probes.base.Probe`.
    bins
        Number of bins.
    nearest, farthest
        Range in metres that the bins span evenly, and of the depths that count at validation.
    upsample
        Points at which bins are predicted along each side of a patch.
    loss_stride
        The scale-invariant loss counts every ``loss_stride``-th row and column of the depth, others at each step in
        turn; 1, as in the paper, counts all.
    padding
        ``cut``: at validation, cut the padding of the picture off the prediction. ``stretch``: stretch the padded
        prediction over the depth, as the published code does, which shifts it by up to the padding.
    unknown_bin
        Bin of pixels without a depth in the cross-entropy: ``ignored``, or ``farthest``, the last bin, as the published
        code has it (its 255 is a valid bin of 256, while the loss ignores 256).
    **kwargs
        As in :class:`~raptor.tasks.probes.base.Probe`.
    """

    target, score, higher_is_better = "depth", "rmse", False

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        bins: int = 256,
        nearest: float = 1e-3,
        farthest: float = 10.0,
        upsample: int = 4,
        loss_stride: int = 1,
        padding: str = "cut",
        unknown_bin: str = "ignored",
        **kwargs: Any,
    ) -> None:
        for key, value, known in (("padding", padding, PADDINGS), ("unknown_bin", unknown_bin, UNKNOWN_BINS)):
            if value not in known:
                raise ConfigError.of(f"task.{key}", value, " or ".join(known), f"set task.{key}={known[0]}")
        if upsample < 1:
            raise ConfigError.of("task.upsample", upsample, "integer >= 1", "set task.upsample=4")
        self.loss_stride = check_loss_stride(loss_stride, backbone)
        self.num_features = backbone.layout.num_features(backbone.width)
        self.bins, self.nearest, self.farthest, self.upsample = bins, nearest, farthest, upsample
        self.stretch, self.unknown_bin = padding == "stretch", IGNORED if unknown_bin == "ignored" else bins - 1
        if kwargs.get("flip") and (backbone.input_shape[2] - data.output_size[1]) % 2:
            expected = "false where the padding left and right differs"
            raise ConfigError.of("task.flip", True, expected, "choose an even width in teacher.options.img_size")
        super().__init__(backbone=backbone, data=data, source=source, **kwargs)

    def make_head(self) -> DepthProbe:
        """Make one linear layer for all patches."""
        return DepthProbe(self.num_features, self.bins, self.nearest, self.farthest)

    def make_scores(self) -> nn.Module:
        """Make RMSE in metres and its companions."""
        return DepthScores(self.nearest, self.farthest)

    def features(self, tokens_BND: Tensor) -> Tensor:
        """Take the class token, if there is one, and the patches: ``(B, 1 + P, D)``."""
        layout = self.backbone.layout
        kinds = [kind for kind in ("cls", "patches") if kind in layout.types]
        return torch.cat([layout.select(tokens_BND, kind) for kind in kinds], dim=1)

    def logits(self, heads: Sequence[LinearProbe], features: Tensor) -> Tensor:
        """Compute logits ``(K, B, P, bins)``; the class token's part is added to every patch rather than repeated."""
        weight, bias = (torch.cat([getattr(h.linear, name) for h in heads]) for name in ("weight", "bias"))
        width, cls = features.shape[-1], features.shape[1] - self.backbone.layout.patches
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            logits = F.linear(features[:, cls:], weight[:, :width], bias)
            if cls:
                logits = logits + F.linear(features[:, :1], weight[:, width:])
        return logits.unflatten(-1, (len(heads), -1)).movedim(-2, 0)

    @property
    def _fine(self) -> tuple[int, int]:
        rows, columns = self.backbone.grid
        return self.upsample * rows, self.upsample * columns

    def _finer(self, logits_BPC: Tensor) -> Tensor:
        """Compute log-probabilities on the upsampled grid, ``(B, h, w, bins)``: linear layer and upsampling commute."""
        return bilinear_at(logits_BPC.unflatten(1, self.backbone.grid), self._fine).log_softmax(-1)

    def _depth(
        self,
        head: DepthProbe,
        logp: Tensor,
        size: Sequence[int],
        at: tuple[slice, slice] = ALL,
        *,
        stretch: bool = False,
    ) -> Tensor:
        """Compute depth ``(B, H, W)`` at rows and columns of a picture, its padding cut off or stretched over it."""
        padded = tuple(size) if stretch else self.backbone.input_shape[1:]
        top, left = offsets(size, padded)
        rows, columns = (bilinear_weights(*n, logp) for n in zip(padded, self._fine, strict=True))
        with torch.autocast(logp.device.type, enabled=False):
            rows, columns = rows[top : top + size[0]][at[0]], columns[left : left + size[1]][at[1]]
            return rows @ head.depth(logp) @ columns.T

    def _coarser(self, depth_BHW: Tensor, size: Sequence[int]) -> Tensor:
        """Sample depth on the upsampled grid of the padded picture, 0 where there is none."""
        (height, width), (H, W) = self.backbone.input_shape[1:], depth_BHW.shape[-2:]
        top, left = offsets((H, W), (height, width))
        padded = F.pad(depth_BHW, (left, width - W - left, top, height - H - top))
        return F.interpolate(padded[:, None], size=tuple(size), mode="nearest-exact")[:, 0]

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute ten times the scale-invariant loss plus the cross-entropy on bins, for each head."""
        head, depth = cast(DepthProbe, self.heads[0]), targets.squeeze(1)  # any head: all have the same bins
        bins = depth_bins(self._coarser(depth, self._fine), self.bins, self.nearest, self.farthest)
        bins = bins.where(bins != IGNORED, self.unknown_bin)
        size, at = depth.shape[-2:], lattice(depth.shape[-2:], self.loss_stride, self.global_step)

        def of_heads(logits_KBPC: Tensor, _: Tensor) -> Tensor:
            logp = self._finer(logits_KBPC.flatten(0, 1))
            by_point = pixel_cross_entropy(logp, bins.repeat(len(logits_KBPC), 1, 1), IGNORED)
            cross = by_point.view(len(logits_KBPC), -1).sum(1) / (bins != IGNORED).sum().clamp(min=1)
            pred = self._depth(head, logp, size, at).unflatten(0, logits_KBPC.shape[:2])
            return cross + SCALE_INVARIANT * scale_invariant(pred, depth[(..., *at)])

        return row_losses(of_heads, logits, max(1, self.bins * bins.numel()))

    def predict(self, head: LinearProbe, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute depth at the size of the targets, in metres."""
        assert isinstance(head, DepthProbe)
        return self._depth(head, self._finer(logits), targets.shape[-2:], stretch=self.stretch)[:, None]

    def counted(self, targets: Tensor) -> Tensor:
        """Mark the pixels of the Eigen crop whose depth is known and within bounds."""
        return scored_pixels(targets, self.nearest, self.farthest)

    def mirrored(self, prediction: Tensor) -> Tensor:
        """Mirror a map of depth."""
        return prediction.flip(-1)


def depth_bins(depth: Tensor, bins: int, nearest: float, farthest: float) -> Tensor:
    """Find the bin of each depth; :data:`IGNORED` outside ``[nearest, farthest]``, at 0 and where not finite.

    Parameters
    ----------
    depth
        In metres, any shape.
    bins
        Number of bins, which span ``nearest`` to ``farthest`` evenly; ``farthest`` itself is in the last.
    """
    known = is_known(depth, nearest, farthest)
    share = (depth.nan_to_num(0.0, 0.0, 0.0) - nearest) / (farthest - nearest)
    return (share * bins).long().clamp(0, bins - 1).where(known, IGNORED)


def is_known(depth: Tensor, nearest: float, farthest: float) -> Tensor:
    """Mark depths that are measured (above 0) and within bounds, in metres."""
    return (depth > 0) & (depth >= nearest) & (depth <= farthest)


def scale_invariant(pred: Tensor, depth: Tensor) -> Tensor:
    """Compute the scale-invariant log loss, mean(d^2) - 0.85 mean(d)^2, over pixels of known depth; 0 if there is none.

    Parameters
    ----------
    pred
        In metres, ``(..., *S)``, with d = log(pred + 1e-3) - log(depth + 1e-3).
    depth
        In metres, ``S``; what is not above 0, or not finite, is unknown.

    Returns
    -------
    Tensor
        Losses ``(...)``.
    """
    known = (depth > 0) & depth.isfinite()
    d = torch.log(pred + SHIFT) - torch.log(depth.where(known, 1.0) + SHIFT)
    d = (d * known).flatten(-depth.ndim)
    count = known.sum().clamp(min=1)
    return torch.linalg.vecdot(d, d) / count - VARIANCE * (d.sum(-1) / count) ** 2


def eigen_crop(size: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns that count, scaled from 480x640 to a size."""
    rows, columns = (full / native for full, native in zip(size, SIZE, strict=True))
    top, bottom, left, right = EIGEN
    return (
        slice(round(top * rows), round(bottom * rows)),
        slice(round(left * columns), round(right * columns)),
    )


def scored_pixels(depth: Tensor, nearest: float, farthest: float) -> Tensor:
    """Mark the pixels ``(..., rows, columns)`` of the Eigen crop whose depth counts."""
    rows, columns = eigen_crop(depth.shape[-2:])
    return is_known(depth[..., rows, columns], nearest, farthest)


class DepthScores(nn.Module):
    """Measure errors over the Eigen crop, where the true depth lies within bounds.

    ``rmse`` pools all pixels of the set, ``rmse_images`` is the mean over pictures, both in metres; ``abs_rel``
    is the mean of error over depth, ``delta1`` the share of pixels within a factor of 1.25.

    Parameters
    ----------
    nearest, farthest
        Bounds in metres.
    """

    def __init__(self, nearest: float, farthest: float) -> None:
        super().__init__()
        self.nearest, self.farthest = nearest, farthest
        self.pixels = MetricCollection(
            {"rmse": MeanSquaredError(squared=False), "abs_rel": MeanAbsolutePercentageError()}, compute_groups=False
        )
        self.means = nn.ModuleDict({"rmse_images": MeanMetric(), "delta1": MeanMetric()})
        for metric in (*self.pixels.values(), *self.means.values()):
            metric.set_dtype(torch.float64)  # type: ignore[operator]

    def update(self, pred: Tensor, depth: Tensor) -> None:
        """Add a batch, ``(B, 1, H, W)`` both, in metres."""
        rows, columns = eigen_crop(depth.shape[-2:])
        pred, depth = (x[..., rows, columns].double().flatten(1) for x in (pred, depth))
        known = is_known(depth, self.nearest, self.farthest)
        self.pixels.update(pred[known], depth[known])
        ratio = torch.maximum(pred[known] / depth[known], depth[known] / pred[known])
        self.means["delta1"].update((ratio < 1.25).double())  # type: ignore[operator]
        squares = (pred - depth).square().where(known, 0.0).sum(1) / known.sum(1)
        self.means["rmse_images"].update(squares[known.any(1)].sqrt())  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """Return all errors by name."""
        return {**self.pixels.compute(), **{name: metric.compute() for name, metric in self.means.items()}}  # type: ignore[operator]

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.pixels, *self.means.values()):
            metric.reset()  # type: ignore[operator]
