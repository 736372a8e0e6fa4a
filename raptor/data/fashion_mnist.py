"""Fashion-MNIST: 70,000 product photographs of ten kinds."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST as Published

from raptor.data.module import Images
from raptor.data.small_images import Resized, SmallImages, fetched
from raptor.errors import ConfigError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts them
NAMES = {"train": "train", "val": "t10k"}


class FashionMNIST(SmallImages):
    """60,000 training and 10,000 test photographs, 28x28 grey, resized to the teacher's input.

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
        self.root = Path(root) if root is not None else DEBIAN if DEBIAN.is_dir() else self._download(Path(download))

    @staticmethod
    def _download(folder: Path) -> Path:
        remedy = "install Debian's dataset-fashion-mnist, or set data.root to a folder with its four *-ubyte.gz files"
        published = fetched("Fashion-MNIST (31 MB)", remedy, lambda: Published(str(folder), download=True))
        return Path(published.raw_folder)

    @property
    def num_classes(self) -> int:
        """Ten."""
        return 10

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Training and test photographs, resized (bicubic) and repeated over channels."""
        if input_shape[0] not in (1, 3):
            raise ConfigError(f"data=fashion_mnist gives grey images, the teacher wants {input_shape[0]} channels")
        train, val = (
            Resized(
                self._read(f"{name}-images-idx3-ubyte", 16), self._read(f"{name}-labels-idx1-ubyte", 8), input_shape
            )
            for name in NAMES.values()
        )
        return train, val

    def _read(self, name: str, header: int) -> Tensor:
        packed, plain = self.root / f"{name}.gz", self.root / name
        try:
            data = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
        except FileNotFoundError as error:
            raise ConfigError(f"data.root={self.root} has neither {name} nor {name}.gz") from error
        except (OSError, EOFError) as error:
            raise ConfigError(f"{packed} is damaged ({error}): fetch it again") from error
        values = torch.from_numpy(np.frombuffer(data, np.uint8, offset=header).copy())
        return values if header == 8 else values.view(-1, 1, 28, 28)
