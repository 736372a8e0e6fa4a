"""Keep small images in memory, resize them as they are taken, fetch them from a publisher."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.io import tensors_fingerprint

T = TypeVar("T")
log = logging.getLogger(__name__)


class SmallImages(ImageData):
    """Images of one size that fit in memory, in datasets of :class:`Resized`."""

    def digest(self, images: Any) -> str:
        """Return a digest of all bytes."""
        return tensors_fingerprint({"images": images.images, "labels": images.labels})


def fetched(what: str, fix: str, download: Callable[[], T]) -> T:
    """Return what ``download`` returns, or raise an error that names another way to get it.

    Parameters
    ----------
    what
        What is downloaded, for the log and the error.
    fix
        What to do without a network.
    download
        Fetches it.

    Raises
    ------
    ConfigError
        If the download fails.
    """
    log.info("reading %s, downloaded where it is missing", what)
    try:
        return download()
    except (RuntimeError, OSError) as error:
        raise ConfigError.of("data.root", None, f"a download of {what} ({error})", fix) from error


class Resized:
    """Pictures of one size in memory, resized (bicubic) and repeated over channels as they are taken.

    Parameters
    ----------
    images
        uint8 ``(n, C, H, W)``, C that of the input or 1.
    labels
        ``(n,)``.
    input_shape
        Channels, height and width to give.
    """

    def __init__(self, images: Tensor, labels: Tensor, input_shape: tuple[int, int, int]) -> None:
        self.images, self.labels = images, labels
        self.channels, *self.size = input_shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = TF.resize(self.images[i], self.size, interpolation=TF.InterpolationMode.BICUBIC, antialias=True)
        return image.expand(self.channels, -1, -1), int(self.labels[i])
