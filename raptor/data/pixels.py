"""Read the pixel cache: images after their deterministic resize and crop, stored once as uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from raptor.data.store.layout import Field
from raptor.data.store.reading import Reader
from raptor.errors import SampleError, StoreError

CONTENT = "pixels"
SPLITS = ("train", "val")


def pixel_fields(input_shape: Sequence[int]) -> list[Field]:
    """Return the fields of a pixel cache for images ``(C, H, W)``."""
    return [Field("pixels", "uint8", tuple(input_shape)), Field("label", "int64", ())]


class CachedImages:
    """A pixel cache as a dataset: ``(image, label)`` by position.

    Parameters
    ----------
    reader
        The store.

    Raises
    ------
    SampleError
        On access to a picture that was left out when the cache was made.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader, self.left_out = reader, reader.store.left_out

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, where the images had any."""
        return self.reader.store.about.get("classes")

    @property
    def digest(self) -> str:
        """Digest of the images that were cached."""
        return self.reader.store.about["digest"]

    def __len__(self) -> int:
        return self.reader.store.samples

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.__getitems__([i])[0]

    def __getitems__(self, samples: Sequence[int]) -> list[tuple[Tensor, int]]:
        for i in self.left_out.keys() & set(samples):
            raise SampleError(self.left_out[i])
        images, labels = self.reader.read(samples, ["pixels", "label"])
        return list(zip(images, labels.tolist(), strict=True))


def open_pixels(folder: str | Path, data: str, transform: Mapping[str, Any]) -> tuple[CachedImages, CachedImages]:
    """Open the training and validation images of a pixel cache.

    Parameters
    ----------
    folder
        The cache; it holds a store for each split.
    data
        Name of the data that it must be of.
    transform
        Transform that it must have been made with.

    Raises
    ------
    StoreError
        If the cache is missing, incomplete, or another.
    """
    if not Path(folder).is_dir():
        fix = (
            "make it with python -m raptor.extract content=pixels and the same data and teacher, or set "
            "data.pixels=null to decode the images every time"
        )
        raise StoreError.of("data.pixels", folder, "a pixel cache", fix)
    readers = [Reader(Path(folder) / split) for split in SPLITS]
    for split, reader in zip(SPLITS, readers, strict=True):
        expected = {"about": {"content": CONTENT, "split": split, "data": data, "transform": dict(transform)}}
        reader.store.require(expected, "name another cache as data.pixels, or set it to null")
    train, val = (CachedImages(reader) for reader in readers)
    return train, val
