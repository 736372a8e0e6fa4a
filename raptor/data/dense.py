"""Read and transform pictures together with a map of labels or depth: the base of dense data sets."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as TF

from raptor.data.module import ImageData
from raptor.data.pictures import read_picture
from raptor.data.sampling import Images, Transform
from raptor.data.transforms import Map
from raptor.errors import ConfigError, SampleError
from raptor.utils.files import user_path

Pair = tuple[Path, Path]


class Pairs:
    """Pictures with their maps as a dataset: ``(image, map)`` by position, the map ``(1, H, W)``.

    Parameters
    ----------
    files
        Picture and map of each sample.
    read
        Reads a map ``(1, H, W)``.
    transform
        Applied to both together; None gives them as they are on disk.
    """

    def __init__(self, files: Sequence[Pair], read: Callable[[Path], Tensor], transform: Transform | None) -> None:
        self.files, self.read, self.transform = files, read, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        picture, path = self.files[i]
        image = tv_tensors.Image(TF.pil_to_tensor(read_picture(picture)))
        target = Map(self.read(path))
        if image.shape[-2:] != target.shape[-2:]:
            sizes = ["x".join(map(str, x.shape[-2:])) for x in (target, image)]
            expected = f"the size of its picture {picture}, {sizes[1]} turned as EXIF says, it has {sizes[0]}"
            raise SampleError.of("map", path, expected, "repair or remove both, or set data.on_error=skip")
        return (image, target) if self.transform is None else self.transform(image, target)


class DenseData(ImageData):
    """Base of data whose targets are maps.

    Pictures and maps are read as :mod:`raptor.data.pictures` says.

    Parameters
    ----------
    root
        Folder of the data set.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`; there are no pixel caches of pairs.
    """

    layout = ""  # what the folder must hold, and where to get it
    keys = ""  # what else names the folder

    def __init__(self, root: str | Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = user_path("data.root", root)
        if self.pixels is not None:
            raise ConfigError.of("data.pixels", self.pixels, "null, since pixel caches hold no maps", "set it to null")
        self._files = {split: self.list_files(split) for split in ("train", "val")}
        for split, files in self._files.items():
            if not files:
                raise self.misplaced(f"there is no {split} picture in it")

    def misplaced(self, problem: str) -> ConfigError:
        """Return the error for a data set that is missing or laid out otherwise."""
        fix = f"set {self.keys} or data.root to ROOT"
        return ConfigError.of("data.root", self.root, f"{self.layout}; {problem}", fix)

    @abstractmethod
    def list_files(self, split: str) -> list[Pair]:
        """List the files of ``"train"`` or ``"val"``; those without a partner go to :meth:`unusable`."""

    @abstractmethod
    def reader(self, split: str) -> Callable[[Path], Tensor]:
        """Return what reads a map of a split, ``(1, H, W)``."""

    def originals(self) -> Images:
        """Return training pairs as they are on disk."""
        return Pairs(self._files["train"], self.reader("train"), None)

    def digest(self, images: Any) -> str:
        """Return a digest of the paths of all pictures, relative to the root; their bytes are not read."""
        paths = "\n".join(os.path.relpath(picture, self.root) for picture, _ in images.files)
        return hashlib.sha256(os.fsencode(paths)).hexdigest()
