"""CIFAR-10 and CIFAR-100: 60,000 colour pictures of 32x32, of ten or a hundred classes (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torchvision import datasets as published

from raptor.data.sampling import Images
from raptor.data.small_images import Resized, SmallImages, fetched
from raptor.errors import ConfigError
from raptor.utils.files import user_path


class CIFAR(SmallImages):
    """50,000 training and 10,000 test pictures, read by torchvision; resized (bicubic) where needed.

    Torchvision compares every file with the publisher's checksum before it is unpickled.

    Parameters
    ----------
    root
        Folder with the publisher's folder of batches, or that folder itself. None downloads the publisher's archive.
    download
        Where torchvision puts it.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If a file is missing or damaged, or the download fails.
    """

    source: ClassVar[type[published.CIFAR10]]  # torchvision's class
    classes: ClassVar[int]
    label: ClassVar[str]  # for messages

    def __init__(self, root: str | Path | None, download: str | Path, **kwargs: Any) -> None:
        super().__init__(name=self.source.__name__.lower(), **kwargs)
        self._named = root is not None
        self.root = user_path("data.download", download) if root is None else user_path("data.root", root)
        if self.root.name == self.source.base_folder:
            self.root = self.root.parent

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.classes

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return training and test pictures, resized where the teacher takes another size."""
        if input_shape[0] != 3:
            expected = f"3, as the pictures of data={self.name} have"
            raise ConfigError.of("teacher.options.in_chans", input_shape[0], expected, "choose another teacher or data")
        train, val = (self._read(split, input_shape) for split in ("train", "test"))
        return train, val

    def _read(self, split: str, input_shape: tuple[int, int, int]) -> Resized:
        folder, url = self.source.base_folder, self.source.url
        fix = f"unpack {url} and set data.root to the folder that holds {folder}, or to null for a download"
        if self._named:
            try:
                data = self.source(str(self.root), train=split == "train")
            except (RuntimeError, OSError) as error:
                expected = f"{folder} with the publisher's batches, each with its checksum ({error})"
                raise ConfigError.of("data.root", self.root, expected, fix) from error
        else:
            data = fetched(
                f"{self.label} ({url})", fix, lambda: self.source(str(self.root), train=split == "train", download=True)
            )
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        return Resized(images, torch.tensor(data.targets), input_shape)


class CIFAR10(CIFAR):
    """Pictures of ten classes."""

    source, classes, label = published.CIFAR10, 10, "CIFAR-10, 170 MB"


class CIFAR100(CIFAR):
    """Pictures of a hundred classes (the fine labels)."""

    source, classes, label = published.CIFAR100, 100, "CIFAR-100, 169 MB"
