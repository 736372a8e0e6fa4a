"""Random transforms of an image and its target together, by torchvision's v2."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode


def crop_and_flip(
    size: tuple[int, int],
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
    jitter: Sequence[float] | None = None,
) -> v2.Transform:
    """Random resized crop, horizontal flip with even odds, colour jitter where asked.

    Maps that come with an image (``tv_tensors.Mask``: labels, depth) are cut and flipped alike, by nearest
    neighbour; classes pass through.

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
