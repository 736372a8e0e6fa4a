"""Any folder of pictures, one subfolder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from raptor.data.listing import list_pictures
from raptor.data.module import ImageData
from raptor.data.pictures import picture_extensions, read_picture
from raptor.data.pixels import SPLITS
from raptor.data.sampling import Images
from raptor.errors import ConfigError
from raptor.utils.files import user_path


class LabelledPictures:
    """Pictures on disk as a dataset: ``(image, class)`` by position.

    Parameters
    ----------
    samples
        Path and class of each picture.
    classes
        Names of the classes.
    transform
        Makes a uint8 image ``(C, H, W)`` of an RGB picture.
    """

    def __init__(self, samples: Sequence[tuple[str, int]], classes: list[str], transform: v2.Transform) -> None:
        self.samples, self.classes, self.transform = samples, classes, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.samples[i]
        return self.transform(read_picture(path)), label


class PictureFolders(ImageData):
    """Pictures on disk as ``ROOT/train/CLASS/*`` and ``ROOT/val/CLASS/*``.

    Files are read as :mod:`raptor.data.pictures` says, and listed as :func:`~raptor.data.listing.list_pictures` does.

    Parameters
    ----------
    root
        Folder that holds ``train`` and ``val``. None, with a pixel cache, reads the cache alone.
    crop
        Share of the shorter side that the centre crop keeps, above 0 and at most 1; the paper's 224 of 256 is 0.875.
    name
        Name for results.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If the folders are missing, empty, or hold different classes.
    """

    layout = (
        "ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg with the same classes in both; for ImageNet-1k, ILSVRC2012 of "
        "image-net.org with the validation pictures sorted by class"
    )
    fix = "set data.root to ROOT (of data=imagenet: paths.imagenet or RAPTOR_IMAGENET)"

    def __init__(self, root: str | Path | None, crop: float = 0.875, name: str = "image_folder", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
            expected = "a share of the shorter side, above 0 and at most 1"
            raise ConfigError.of("data.crop", crop, expected, "set 0.875 for 224 of 256 pixels, 1 for no crop")
        if root is None and self.pixels is None:
            raise ConfigError.of("data.root", None, self.layout, f"{self.fix}, or name a cache as data.pixels")
        self.root, self.crop = user_path("data.root", root or ""), crop
        self._has_root = root is not None
        if self.pixels is None:
            self.check_layout()

    @property
    def has_originals(self) -> bool:
        """Whether the pictures are here; ``root=None`` says that a cache need not be compared with them."""
        return self._has_root and all((self.root / split).is_dir() for split in SPLITS)

    def misplaced(self, problem: str) -> ConfigError:
        """Return the error for pictures that are missing or laid out otherwise."""
        return ConfigError.of("data.root", self.root, f"{self.layout}; {problem}", self.fix)

    def check_layout(self) -> None:
        """Check that the folders are there.

        Raises
        ------
        ConfigError
            If one is missing.
        """
        for split in SPLITS:
            if not (self.root / split).is_dir():
                raise self.misplaced(f"there is no folder {split}")
        names = [_class_names(self.root / split) for split in SPLITS]
        if names[0] != names[1] or not names[0]:
            odd = sorted(set(names[0]) ^ set(names[1]))
            raise self.misplaced(f"classes differ between train and val ({odd[:5]})" if odd else "there is no class")

    @property
    def num_classes(self) -> int:
        """Number of class folders."""
        return len(self.train_images.classes)  # type: ignore[attr-defined]

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Describe the bicubic resize of the shorter side before the centre crop."""
        shorter = round(max(input_shape[1:]) / self.crop)
        return {**super().transform(input_shape), "shorter_side": shorter}

    def digest(self, images: Any) -> str:
        """Return a digest of the paths of all pictures, relative to the root; their bytes are not read."""
        paths = "\n".join(str(Path(path).relative_to(self.root)) for path, _ in images.samples)
        return hashlib.sha256(os.fsencode(paths)).hexdigest()

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return the pictures of both folders: shorter side resized (bicubic), centre cropped, uint8."""
        if input_shape[0] not in (1, 3):
            expected = "1 or 3, as pictures can be read"
            raise ConfigError.of("teacher.options.in_chans", input_shape[0], expected, "choose another teacher or data")
        height, width = input_shape[1:]
        transform = v2.Compose(
            [
                _colours(input_shape[0]),
                v2.Resize(self.transform(input_shape)["shorter_side"], interpolation=InterpolationMode.BICUBIC),
                v2.CenterCrop((height, width)),
                v2.PILToTensor(),
            ]
        )
        train, val = (LabelledPictures(*self.list_samples(split), transform) for split in SPLITS)
        return train, val

    def originals(self) -> Images:
        """Return training pictures in their own size; from a pixel cache, as they were cached."""
        if self.pixels is not None:
            return self.train_images
        transform = v2.Compose([_colours(self.input_shape[0]), v2.PILToTensor()])
        return LabelledPictures(*self.list_samples("train"), transform)

    def list_samples(self, split: str) -> tuple[list[tuple[str, int]], list[str]]:
        """List path and class of each picture of ``"train"`` or ``"val"``, and the names of the classes.

        Raises
        ------
        ConfigError
            If a class has no picture.
        """
        classes = _class_names(self.root / split)
        return self.label_files(split, [self.root / split / name for name in classes]), classes

    def label_files(self, split: str, folders: Sequence[Path]) -> list[tuple[str, int]]:
        """List the pictures of a split, the class of each the number of its folder.

        Raises
        ------
        ConfigError
            If a folder has none.
        """
        files, passed_over = list_pictures(folders, picture_extensions())
        self.report_passed_over(str(self.root / split), passed_over)
        if empty := [folder for folder, part in zip(folders, files, strict=True) if not part]:
            raise self.misplaced(f"there is no picture in {empty[0]} ({len(empty)} such folders)")
        return [(path, label) for label, part in enumerate(files) for path in part]


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _colours(channels: int) -> v2.Transform:
    return v2.Grayscale(1) if channels == 1 else v2.RGB()
