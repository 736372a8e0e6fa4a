"""ADE20K, scene parsing challenge 2016: photographs with a class for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from raptor.data.dense import DenseData, Pair, Pairs
from raptor.data.listing import list_pictures
from raptor.data.pictures import LEAVE_OUT, picture_extensions, read_map
from raptor.data.sampling import Images, Transform
from raptor.errors import ConfigError, SampleError

FOLDERS = {"train": "training", "val": "validation"}
IGNORED = 255  # label of pixels that count for nothing
EVALUATION = ("squash", "sliding")
LOSSLESS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".pgm")  # what labels can be stored in


class ADE20K(DenseData):
    """``ADEChallengeData2016``: 20,210 training and 2,000 validation pictures, 150 classes.

    On disk 0 is "other" and 1..150 are the classes; here these are 255 (ignored) and 0..149.

    Parameters
    ----------
    root
        Folder with ``images`` and ``annotations``.
    num_classes
        Number of classes.
    evaluation
        ``squash`` resizes picture and labels to the model's input, whatever their shape (the protocol of the
        paper's code); ``sliding`` resizes the shorter side to the input's, keeps the labels as they are, and
        leaves the model to go over the picture in windows, one picture at a time.
    **kwargs
        As in :class:`~raptor.data.dense.DenseData`.

    Raises
    ------
    ConfigError
        If folders are missing.
    SampleError
        For a picture without labels or labels without a picture, unless ``on_error`` is ``skip``.
    """

    target = "labels"
    layout = (
        "ROOT/images/{training,validation}/*.jpg and ROOT/annotations/{training,validation}/*.png of the same names, "
        "as ADEChallengeData2016.zip of the MIT Scene Parsing Benchmark unpacks"
    )
    keys = "paths.ade20k, RAPTOR_ADE20K"

    def __init__(
        self, root: str | Path, num_classes: int = 150, evaluation: str = "squash", name: str = "ade20k", **kwargs: Any
    ) -> None:
        if evaluation not in EVALUATION:
            expected = f"{' or '.join(EVALUATION)}"
            raise ConfigError.of("data.evaluation", evaluation, expected, "choose one of them")
        if evaluation == "sliding" and kwargs.get("eval_batch_size") != 1:
            expected = "pictures one at a time, since they differ in size"
            raise ConfigError.of("data.evaluation", evaluation, expected, "set data.eval_batch_size=1")
        self._num_classes, self.evaluation = num_classes, evaluation
        super().__init__(root, name=name, **kwargs)

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored one."""
        return self._num_classes

    def list_files(self, split: str) -> list[Pair]:
        """List pictures with their labels, by name."""
        pictures, labels = (self.root / kind / FOLDERS[split] for kind in ("images", "annotations"))
        for folder in (pictures, labels):
            if not folder.is_dir():
                raise self.misplaced(f"there is no folder {folder.relative_to(self.root)}")
        photos = self._by_stem(pictures, picture_extensions())
        masks = self._by_stem(labels, LOSSLESS)
        for stem in sorted(photos.keys() ^ masks.keys()):
            partner = f"labels in {labels}" if stem in photos else f"a picture in {pictures}"
            path = photos.get(stem) or masks[stem]
            self.unusable(SampleError.of("file", path, f"{partner} of the same name", LEAVE_OUT))
        return [(photos[stem], masks[stem]) for stem in sorted(photos.keys() & masks.keys())]

    def _by_stem(self, folder: Path, extensions: Collection[str]) -> dict[str, Path]:
        (files,), passed_over = list_pictures([folder], extensions, recursive=False)
        self.report_passed_over(str(folder), passed_over)
        by_stem: dict[str, Path] = {}
        for path in map(Path, files):
            if path.stem in by_stem:
                expected = f"a name of its own, there is {by_stem[path.stem].name} too"
                self.unusable(SampleError.of("file", path, expected, LEAVE_OUT))
            else:
                by_stem[path.stem] = path
        return by_stem

    def reader(self, split: str) -> Callable[[Path], Tensor]:
        """Return the reader of labels, the same for every split."""
        return self._read_labels

    def _read_labels(self, path: Path) -> Tensor:
        labels = read_map(path, "labels", palette=True)
        if labels.dtype.kind not in "bui" or not 0 <= int(labels.min()) <= int(labels.max()) <= self.num_classes:
            expected = (
                f"integers from 0 to {self.num_classes}, it has {labels.dtype} from {labels.min()} to {labels.max()}"
            )
            raise SampleError.of("labels", path, expected, LEAVE_OUT)
        return torch.from_numpy(labels.astype(np.uint8) - 1)[None]  # 0 wraps round to 255, the ignored label

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Describe the bilinear resize and the way of evaluating."""
        return {**super().transform(input_shape), "resize": "bilinear", "evaluation": self.evaluation}

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return training pictures squashed to the input, validation pictures as ``evaluation`` says."""
        if input_shape[0] != 3:
            expected = f"3, as the pictures of data={self.name} have"
            raise ConfigError.of("teacher.options.in_chans", input_shape[0], expected, "choose another teacher or data")
        squash = _Squash(input_shape[1:])
        evaluate: Transform = squash if self.evaluation == "squash" else _Shorter(min(input_shape[1:]))
        train, val = (
            Pairs(self._files[split], self._read_labels, transform)
            for split, transform in (("train", squash), ("val", evaluate))
        )
        return train, val

    def training_images_as_val(self) -> Images:
        """Return training pictures, prepared as ``evaluation`` says."""
        transform = self.val_images.transform  # type: ignore[attr-defined]
        return Pairs(self._files["train"], self._read_labels, transform)

    def summary(self) -> dict[str, Any]:
        """Return plain data for results, with the way of evaluating."""
        return {**super().summary(), "evaluation": self.evaluation}


class _Squash:
    """Resize a picture (bilinear) and its labels (centred nearest) to one size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.resize = v2.Resize(list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.resize(image, labels)


class _Shorter:
    """Resize the picture's shorter side to a length and leave labels as they are."""

    def __init__(self, side: int) -> None:
        self.resize = v2.Resize(side, interpolation=InterpolationMode.BILINEAR, antialias=True)

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.resize(image), labels
