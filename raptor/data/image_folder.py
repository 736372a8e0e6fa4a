"""Any folder of pictures, one subfolder for each class."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from raptor.data.module import ImageData, Images
from raptor.data.pixels import SPLITS
from raptor.errors import ConfigError, SampleError

LAYOUT = (
    "ROOT/train/CLASS/*.jpg and ROOT/val/CLASS/*.jpg, the same classes in both; for ImageNet-1k, ILSVRC2012 of "
    "image-net.org with the validation pictures sorted by class. Set data.root to ROOT (of data=imagenet: "
    "paths.imagenet or RAPTOR_IMAGENET)"
)


class PictureFolders(ImageData):
    """Pictures on disk as ``ROOT/train/CLASS/*`` and ``ROOT/val/CLASS/*``.

    Parameters
    ----------
    root
        Folder that holds ``train`` and ``val``. None, with a pixel cache, reads the cache alone.
    crop
        Share of the shorter side that the centre crop keeps; the paper's 224 out of 256 is 0.875.
    name
        Name for results.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If the folders are missing, empty, or hold different classes.
    """

    def __init__(self, root: str | Path | None, crop: float = 0.875, name: str = "image_folder", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if root is None and self.pixels is None:
            raise ConfigError(f"data.root=null: name the folder of the pictures ({LAYOUT}), or a cache as data.pixels")
        self.root, self.crop = Path(root or ""), crop
        self._has_root = root is not None
        if self.pixels is None:
            self._check_layout()

    @property
    def has_originals(self) -> bool:
        """Whether the pictures are here; ``root=None`` says that a cache need not be compared with them."""
        return self._has_root and all((self.root / split).is_dir() for split in SPLITS)

    def _check_layout(self) -> None:
        for split in SPLITS:
            if not (self.root / split).is_dir():
                raise ConfigError(f"data.root={self.root} has no folder {split!r}; expected layout: {LAYOUT}")
        names = [sorted(p.name for p in (self.root / s).iterdir() if p.is_dir()) for s in SPLITS]
        if names[0] != names[1] or not names[0]:
            odd = sorted(set(names[0]) ^ set(names[1]))
            raise ConfigError(
                f"data.root={self.root}: classes differ between train and val ({odd[:5]}); expected {LAYOUT}"
            )

    @property
    def num_classes(self) -> int:
        """Number of class folders."""
        return len(self.train_images.classes)  # type: ignore[attr-defined]

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Bicubic resize of the shorter side, centre crop."""
        shorter = round(max(input_shape[1:]) / self.crop)
        return {**super().transform(input_shape), "shorter_side": shorter}

    def digest(self, images: Any) -> str:
        """Over the paths of all pictures, relative to the root; their bytes are not read."""
        paths = "\n".join(str(Path(path).relative_to(self.root)) for path, _ in images.samples)
        return hashlib.sha256(paths.encode()).hexdigest()

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Both folders: resize the shorter side (bicubic), centre crop, uint8."""
        height, width = input_shape[1:]
        transform = v2.Compose(
            [
                _colours(input_shape[0]),
                v2.Resize(self.transform(input_shape)["shorter_side"], interpolation=InterpolationMode.BICUBIC),
                v2.CenterCrop((height, width)),
                v2.PILToTensor(),
            ]
        )
        train, val = (self._pictures(split, transform) for split in SPLITS)
        return train, val

    def originals(self) -> Images:
        """Training pictures in their own size; from a pixel cache, as they were cached."""
        if self.pixels is not None:
            return self.train_images
        return self._pictures("train", v2.Compose([_colours(self.input_shape[0]), v2.PILToTensor()]))

    def _pictures(self, split: str, transform: v2.Transform) -> Images:
        try:
            return ImageFolder(str(self.root / split), transform, loader=read_picture)
        except FileNotFoundError as error:
            raise ConfigError(f"data.root={self.root}: {error}; expected layout: {LAYOUT}") from error


def _colours(channels: int) -> v2.Transform:
    return v2.Grayscale(1) if channels == 1 else v2.RGB()


def read_picture(path: str) -> Any:
    """A picture as PIL reads it.

    Raises
    ------
    SampleError
        Naming the file, if it is none.
    """
    try:
        return default_loader(path)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(f"{path} cannot be read as a picture ({error}): replace it, or take it out") from error
