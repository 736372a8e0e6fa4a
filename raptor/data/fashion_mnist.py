"""Fashion-MNIST: 70,000 product photographs of ten kinds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST as Published
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import extract_archive

from raptor.data.sampling import Images
from raptor.data.small_images import Resized, SmallImages, fetched
from raptor.errors import ConfigError
from raptor.utils.files import user_path

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts them
NAMES = {"train": "train", "val": "t10k"}
WHERE = "install Debian's dataset-fashion-mnist, or set data.root to a folder with its four *-ubyte.gz files"


class FashionMNIST(SmallImages):
    """60,000 training and 10,000 test photographs, 28x28 grey, read by torchvision, resized to the teacher's input.

    Parameters
    ----------
    root
        Folder with the four published ``*-ubyte`` files, packed (``.gz``) or not. None takes those of Debian's
        package ``dataset-fashion-mnist`` where it is installed, and else lets torchvision download them.
    download
        Where torchvision puts them.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If a file is missing or damaged, or the download fails.
    """

    def __init__(self, root: str | Path | None, download: str | Path, **kwargs: Any) -> None:
        super().__init__(name="fashion_mnist", **kwargs)
        if root is not None:
            self.root = user_path("data.root", root)
        else:
            self.root = DEBIAN if DEBIAN.is_dir() else self._download(user_path("data.download", download))

    @staticmethod
    def _download(folder: Path) -> Path:
        published = fetched("Fashion-MNIST, 31 MB", WHERE, lambda: Published(str(folder), download=True))
        return Path(published.raw_folder)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return 10

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return training and test photographs, resized (bicubic) and repeated over channels."""
        if input_shape[0] not in (1, 3):
            expected = "1 or 3, since the photographs are grey"
            raise ConfigError.of("teacher.options.in_chans", input_shape[0], expected, "choose another teacher or data")
        train, val = (
            Resized(
                self._read(f"{name}-images-idx3-ubyte", read_image_file)[:, None],
                self._read(f"{name}-labels-idx1-ubyte", read_label_file).to(
                    torch.uint8
                ),  # as digests of stores have it
                input_shape,
            )
            for name in NAMES.values()
        )
        return train, val

    def _read(self, name: str, read: Callable[[str], Tensor]) -> Tensor:
        packed, plain = self.root / f"{name}.gz", self.root / name
        if not (plain.is_file() or packed.is_file()):
            raise ConfigError.of("data.root", self.root, f"{name} or {name}.gz in it", WHERE)
        try:
            if plain.is_file():
                return read(str(plain))
            with TemporaryDirectory() as folder:
                extract_archive(str(packed), folder)
                return read(f"{folder}/{name}")
        except (
            OSError,
            EOFError,
            zlib.error,
            ValueError,
            TypeError,
            AssertionError,
            LookupError,
            RuntimeError,
        ) as error:
            path = plain if plain.is_file() else packed
            expected = f"the published IDX file ({error or type(error).__name__})"
            raise ConfigError.of("file", path, expected, "fetch it again") from error
