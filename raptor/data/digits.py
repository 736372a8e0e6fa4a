"""Handwritten digits of scikit-learn: the embedded default."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset
from torchvision.transforms.v2 import functional as TF

from raptor.data.module import ImageData
from raptor.data.sampling import Images
from raptor.errors import ConfigError
from raptor.models.io import tensors_fingerprint


class Digits(ImageData):
    """1,797 scans of handwritten digits, 8x8 grey, a fixed stratified fifth held out.

    The split depends on nothing: every teacher, surrogate and probe of this project is evaluated on the same
    360 digits, none of which was trained on.

    Parameters
    ----------
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(name="digits", **kwargs)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 10

    def digest(self, images: Any) -> str:
        """Return a digest of all bytes."""
        return tensors_fingerprint({str(i): tensor for i, tensor in enumerate(images.tensors)})

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return training and held-out digits, resized and repeated over channels where needed."""
        channels, height, width = input_shape
        if channels not in (1, 3):
            expected = "1 or 3, since the digits are grey"
            raise ConfigError.of("teacher.options.in_chans", channels, expected, "choose another teacher or data")
        digits = load_digits()
        images = torch.tensor(digits.images * 255 / 16).round().to(torch.uint8)[:, None]
        if (height, width) != (8, 8):
            images = TF.resize(images, [height, width], interpolation=TF.InterpolationMode.BICUBIC, antialias=True)
        images = images.expand(-1, channels, -1, -1)
        labels = torch.tensor(digits.target)
        train, val = train_test_split(range(len(labels)), test_size=0.2, stratify=digits.target, random_state=0)
        return TensorDataset(images[train], labels[train]), TensorDataset(images[val], labels[val])
