"""Tiny-ImageNet: 110,000 photographs of 64x64 pixels, of 200 classes of ImageNet, as the public archive unpacks."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from raptor.data.image_folder import PictureFolders
from raptor.data.listing import list_pictures
from raptor.data.pictures import LEAVE_OUT, picture_extensions
from raptor.errors import ConfigError, SampleError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CLASSES, NAMES, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"


class TinyImageNet(PictureFolders):
    """100,000 training and 10,000 validation photographs; classes are numbered by WordNet id in alphabetic order.

    The class of a training picture is its folder, that of a validation picture the second column of
    ``val_annotations.txt``.

    Parameters
    ----------
    root
        Folder that holds ``train``, ``val`` and ``wnids.txt``. None, with a pixel cache, reads the cache alone.
    crop
        Share of the shorter side that the centre crop keeps.
    **kwargs
        As in :class:`~raptor.data.module.ImageData`.

    Raises
    ------
    ConfigError
        If a folder or table is missing.
    SampleError
        For a validation picture without a class or a row without its picture, unless ``on_error`` is ``skip``.
    """

    layout = f"ROOT/train/WNID/images/*, ROOT/val/images/*, ROOT/{ANNOTATIONS} and ROOT/{CLASSES}, as {URL} unpacks"
    fix = f"fetch {URL}, unpack it and set data.root to its folder tiny-imagenet-200"

    def __init__(self, root: str | Path | None, crop: float = 1.0, name: str = "tiny_imagenet", **kwargs: Any) -> None:
        super().__init__(root, crop=crop, name=name, **kwargs)

    def check_layout(self) -> None:
        """Check that folders and tables are there.

        Raises
        ------
        ConfigError
            If one is missing.
        """
        for path in ("train", "val", CLASSES):
            if not (self.root / path).exists():
                raise self.misplaced(f"there is no {path}")
        for path in ("val/images", ANNOTATIONS):
            if not (self.root / path).exists():
                sorted_by_class = "; validation pictures sorted into a folder for each class are data=image_folder"
                raise self.misplaced(f"there is no {path}{sorted_by_class}")

    def list_samples(self, split: str) -> tuple[list[tuple[str, int]], list[str]]:
        """List path and class of each picture of ``"train"`` or ``"val"``, and the WordNet ids of the classes."""
        classes = sorted(row[0] for row in self._table(CLASSES, 1))
        if split == "train":
            folders = [self.root / "train" / wnid / "images" for wnid in classes]
            if missing := [folder for folder in folders if not folder.is_dir()]:
                raise self.misplaced(f"there is no folder {missing[0].relative_to(self.root)}")
            return self.label_files(split, folders), classes
        return self._list_val({wnid: label for label, wnid in enumerate(classes)}), classes

    def class_names(self) -> dict[str, str]:
        """Return what each WordNet id means, from ``words.txt``."""
        return dict(self._table(NAMES, 2))

    def digest(self, images: Any) -> str:
        """Return a digest of path and class of all pictures; their bytes are not read."""
        rows = "\n".join(f"{os.path.relpath(path, self.root)} {label}" for path, label in images.samples)
        return hashlib.sha256(os.fsencode(rows)).hexdigest()

    def _list_val(self, labels: dict[str, int]) -> list[tuple[str, int]]:
        folder = self.root / "val/images"
        (files,), passed_over = list_pictures([folder], picture_extensions(), recursive=False)
        self.report_passed_over(str(folder), passed_over)
        rows = dict(self._table(ANNOTATIONS, 2))
        samples = []
        for path in files:
            wnid = rows.pop(Path(path).name, None)
            if wnid in labels:
                samples.append((path, labels[wnid]))
            else:
                problem = "it is not there" if wnid is None else f"it has {wnid}, which {CLASSES} has not"
                expected = f"its name and class in {self.root / ANNOTATIONS} ({problem})"
                self.unusable(SampleError.of("picture", path, expected, LEAVE_OUT))
        for name in rows:
            expected = f"a picture in {folder}, as {Path(ANNOTATIONS).name} says"
            self.unusable(SampleError.of("picture", folder / name, expected, LEAVE_OUT))
        if not samples:
            raise self.misplaced("there is no validation picture")
        return samples

    def _table(self, name: str, columns: int) -> list[list[str]]:
        """Read the first columns of a table separated by tabs."""
        try:
            lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self.misplaced(f"{name} cannot be read ({error})") from error
        rows = [line.rstrip("\r").split("\t")[:columns] for line in lines if line.strip()]
        if short := [row for row in rows if len(row) < columns]:
            raise ConfigError.of(
                "file", self.root / name, f"{columns} columns separated by tabs, not {short[0]}", self.fix
            )
        return rows
