"""Transforms of an image and its map together, by torchvision's v2.

Positions are pixel centres: pixel ``i`` of ``n`` lies at ``(i + 0.5) / n`` of the image's extent, before and after a
resize. Torchvision resizes images so, but ``tv_tensors.Mask`` by torch's ``nearest``, which takes the value at
``i / n``, half an output pixel up and left of the image; :class:`Map` takes the value at the pixel centre instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.v2 import functional as TF


class Map(tv_tensors.Mask):
    """Labels or depth ``(1, H, W)``, resized by centred nearest neighbour (``nearest-exact``) in any v2 transform."""


@TF.register_kernel("resize", Map)
def _resize(target: Map, size: list[int] | None, max_size: int | None = None, **_: Any) -> Map:
    values = TF.resize_image(target.as_subclass(Tensor), size, InterpolationMode.NEAREST_EXACT, max_size)
    return tv_tensors.wrap(values, like=target)


@TF.register_kernel("resized_crop", Map)
def _resized_crop(target: Map, top: int, left: int, height: int, width: int, size: list[int], **_: Any) -> Map:
    return TF.resize(TF.crop(target, top, left, height, width), size)


def crop_and_flip(
    size: tuple[int, int],
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
    jitter: Sequence[float] | None = None,
) -> v2.Transform:
    """Random resized crop, horizontal flip with even odds, colour jitter where set.

    A :class:`Map` that comes with an image is cut and flipped alike; classes pass through.

    Parameters
    ----------
    size
        Height and width of the result in pixels.
    scale
        Least and greatest share of the image's area. Crops that do not fit are drawn again, ten times; then
        the whole image is taken, as torchvision does.
    ratio
        Least and greatest width over height.
    interpolation
        Of the image: ``bicubic`` or ``bilinear``.
    jitter
        Brightness, contrast, saturation and hue of a colour jitter, or None.
    """
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(
            size, scale=tuple(scale), ratio=tuple(ratio), interpolation=InterpolationMode(interpolation), antialias=True
        ),
        v2.RandomHorizontalFlip(),
    ]
    return v2.Compose(steps if jitter is None else [*steps, v2.ColorJitter(*jitter)])
