"""CIFAR-100: 60,000 small colour pictures of a hundred kinds (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.utils import download_and_extract_archive

from raptor.data.module import Images
from raptor.data.small_images import Resized, SmallImages, fetched
from raptor.errors import ConfigError

# the binary version, since the one that torchvision reads is a pickle
URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
MD5 = "03b5dce01913d631647c71ecec9e9cb8"
FOLDER = "cifar-100-binary"
RECORD = 2 + 3 * 32 * 32  # coarse label, fine label, red, green and blue planes


class CIFAR100(SmallImages):
    """50,000 training and 10,000 test pictures, 32x32 colour, of a hundred classes; resized where asked.

    Parameters
    ----------
    root
        Folder with ``train.bin`` and ``test.bin``. None downloads the publisher's archive through torchvision.
    download
        Where torchvision puts it.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If a file is missing or damaged, or the download fails.
    """

    def __init__(self, root: str | Path | None, download: str | Path, **kwargs: Any) -> None:
        super().__init__(name="cifar100", **kwargs)
        self.root = Path(root) if root is not None else self._download(Path(download))

    @staticmethod
    def _download(folder: Path) -> Path:
        if not (folder / FOLDER / "test.bin").is_file():
            fetched(
                f"CIFAR-100 (162 MB, {URL})",
                "unpack that archive elsewhere and set data.root to the folder with its train.bin and test.bin",
                lambda: download_and_extract_archive(URL, str(folder), md5=MD5, remove_finished=True),
            )
        return folder / FOLDER

    @property
    def num_classes(self) -> int:
        """A hundred."""
        return 100

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Training and test pictures, resized (bicubic) where the teacher takes another size."""
        if input_shape[0] != 3:
            raise ConfigError(f"data=cifar100 gives colour images, the teacher wants {input_shape[0]} channels: use 3")
        train, val = (Resized(*self._read(f"{split}.bin"), input_shape) for split in ("train", "test"))
        return train, val

    def _read(self, name: str) -> tuple[Tensor, Tensor]:
        path = self.root / name
        if not path.is_file():
            raise ConfigError(f"data.root={self.root} has no {name}: give the folder that {FOLDER}.tar.gz unpacks to")
        values = torch.from_numpy(np.fromfile(path, np.uint8))
        if not len(values) or len(values) % RECORD:
            raise ConfigError(f"{path} is damaged ({len(values)} bytes, no multiple of {RECORD}): unpack it again")
        records = values.view(-1, RECORD)
        return records[:, 2:].reshape(-1, 3, 32, 32), records[:, 1].long()
