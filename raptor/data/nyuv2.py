"""NYU Depth v2: indoor photographs with a measured depth for every pixel, in metres."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from raptor.data.dense import DenseData, Pair, Pairs
from raptor.data.pictures import LEAVE_OUT, read_map
from raptor.data.sampling import Images
from raptor.errors import ConfigError, SampleError, show

TABLES = {"train": "data/nyu2_train.csv", "val": "data/nyu2_test.csv"}
FAR = 10.0  # metres: value 255 of an 8-bit depth
MILLIMETRE = 1e-3
SIZE = (480, 640)  # of the camera


class NYUv2(DenseData):
    """The Kaggle layout of NYU Depth v2: 50,688 training and 654 test frames, listed in two CSV files.

    Training depth is 8-bit (255 is 10 m), test depth 16-bit in millimetres; 0 is unknown in both. Pictures keep
    their size; the normalised image is padded with zeros, evenly on all sides, to the model's input. The
    depth is not padded.

    Parameters
    ----------
    root
        Folder that holds ``data``.
    size
        Height and width that pictures have, or are resized to.
    **kwargs
        As in :class:`~raptor.data.dense.DenseData`.

    Raises
    ------
    ConfigError
        If the tables are missing.
    SampleError
        For a row that names a missing file, unless ``on_error`` is ``skip``.
    """

    target = "depth"
    layout = (
        "ROOT/data/nyu2_train.csv and ROOT/data/nyu2_test.csv, each row a picture and its depth PNG as paths from "
        "ROOT, as the nyu-depth-v2 archive of Kaggle unpacks"
    )
    keys = "paths.nyuv2, RAPTOR_NYUV2"

    def __init__(self, root: str | Path, size: Sequence[int] = SIZE, name: str = "nyuv2", **kwargs: Any) -> None:
        self.size = (int(size[0]), int(size[1]))
        super().__init__(root, name=name, **kwargs)

    def list_files(self, split: str) -> list[Pair]:
        """List the rows of the table of a split."""
        table = self.root / TABLES[split]
        if not table.is_file():
            raise self.misplaced(f"there is no {TABLES[split]}")
        files: dict[Path, frozenset[Path]] = {}  # by folder: a look-up for each file takes long on a network

        def exists(path: Path) -> bool:
            if path.parent not in files:
                files[path.parent] = frozenset(path.parent.iterdir() if path.parent.is_dir() else ())
            return path in files[path.parent]

        pairs = []
        for number, row in self._rows(table):
            where = f"{table} line {number}"
            if len(row) < 2:
                expected = f"a picture and its depth, it has {','.join(row)!r}"
                self.unusable(SampleError.of("row", where, expected, "correct the row, or set data.on_error=skip"))
                continue
            picture, depth = (self.root / name.strip() for name in row[:2])
            missing = [path for path in (picture, depth) if not exists(path)]
            if missing:
                expected = f"files that exist, {missing[0]} does not"
                self.unusable(SampleError.of("row", where, expected, "correct the row, or set data.on_error=skip"))
                continue
            pairs.append((picture, depth))
        return pairs

    @staticmethod
    def _rows(table: Path) -> list[tuple[int, list[str]]]:
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                return [(number, row) for number, row in enumerate(csv.reader(file), start=1) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError.of(
                "table", table, f"rows of comma-separated paths ({error})", "fetch it again"
            ) from error

    def groups(self) -> Sequence[Hashable]:
        """Return the scene of each training picture; ``den_0001a_out`` and ``den_0001b_out`` are parts of one."""
        return [re.sub(r"(?<=\d)[a-z]?(_out)?$", "", picture.parent.name) for picture, _ in self._files["train"]]

    def reader(self, split: str) -> Callable[[Path], Tensor]:
        """Return the reader of depth, which goes by the bits of a file, not by its split."""
        return read_depth

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Describe the bilinear resize, if any, and the padding."""
        return {**super().transform(input_shape), "resize": "bilinear", "image": list(self.size)}

    @property
    def output_size(self) -> tuple[int, int]:
        """Size of the pictures before padding."""
        return self.size

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return the frames of both tables."""
        if input_shape[0] != 3:
            expected = f"3, as the pictures of data={self.name} have"
            raise ConfigError.of("teacher.options.in_chans", input_shape[0], expected, "choose another teacher or data")
        if any(full < part for full, part in zip(input_shape[1:], self.size, strict=True)):
            expected = f"at least data.size={show(self.size)}, since pictures are padded to the teacher's input"
            fix = "set the next multiples of the patch size ([490,644] for patches of 14 and 480x640)"
            raise ConfigError.of("teacher.options.img_size", input_shape[1:], expected, fix)
        # does nothing to pictures of this size
        resize = v2.Resize(list(self.size), interpolation=InterpolationMode.BILINEAR, antialias=True)
        train, val = (Pairs(self._files[split], read_depth, resize) for split in ("train", "val"))
        return train, val

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """Normalise, then pad with zeros to the model's input; an odd pixel goes to the right and below."""
        x = super().normalize(images_BCHW)
        (top, left), (height, width) = padding(x.shape[-2:], self.input_shape[1:]), self.input_shape[1:]
        return F.pad(x, (left, width - x.shape[-1] - left, top, height - x.shape[-2] - top))


def padding(size: Sequence[int], padded: Sequence[int]) -> tuple[int, int]:
    """Return the rows above and columns left of an image that was padded evenly."""
    return (padded[0] - size[0]) // 2, (padded[1] - size[1]) // 2


def read_depth(path: Path) -> Tensor:
    """Read depth in metres, float32 ``(1, H, W)``, from a picture of 8 or 16 bits.

    Raises
    ------
    SampleError
        If the file is neither.
    """
    values = read_map(path, "depth", palette=False)
    if values.dtype == np.uint8:
        return torch.from_numpy(values.astype(np.float32) / 255 * FAR)[None]
    if values.dtype.kind in "ui":  # Pillow opens 16-bit PNGs as integers of 16 or of 32 bits
        return torch.from_numpy(values.astype(np.float32) * MILLIMETRE)[None]
    raise SampleError.of("depth", path, f"integers of 8 or 16 bits, it has {values.dtype}", LEAVE_OUT)
