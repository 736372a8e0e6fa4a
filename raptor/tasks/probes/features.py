"""Compute features of frozen backbones once: exact, where the images are the same every time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raptor.data.module import ImageData
from raptor.data.sampling import Draw
from raptor.errors import ConfigError
from raptor.utils.terminal import track

log = logging.getLogger(__name__)


class Features(NamedTuple):
    """Carry features in the place of images in a batch.

    Attributes
    ----------
    x
        ``(B, ...)``.
    """

    x: Tensor


class FeatureSet:
    """Serve features with their targets as a dataset of whole batches ``(Features, targets)``.

    Parameters
    ----------
    features, targets
        ``(n, ...)`` each, on the CPU.
    marks
        One flag for each sample, returned beside its target; None returns targets alone.
    """

    def __init__(self, features: Tensor, targets: Tensor, marks: Sequence[bool] | None = None) -> None:
        self.features, self.targets = features, targets
        self.marks = None if marks is None else torch.as_tensor(marks)

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, draws: Sequence[Draw | int]) -> tuple[Features, Any]:
        rows = torch.tensor([draw.sample if isinstance(draw, Draw) else draw for draw in draws])
        targets = self.targets[rows]
        return Features(self.features[rows]), targets if self.marks is None else (targets, self.marks[rows])


def compute(
    batches: Iterable[Any],
    count: int,
    extract: Callable[[Tensor], Tensor],
    prepare: Callable[[Any], Any],
    title: str,
) -> tuple[Tensor, Tensor]:
    """Compute features and targets of all batches, on the CPU.

    Parameters
    ----------
    batches
        Pairs of images and targets, as a loader yields them.
    count
        Largest number of images.
    extract
        Function from normalised images to features.
    prepare
        Function that moves images to the device and normalises them.
    title
        Title of the progress bar.

    Raises
    ------
    ConfigError
        If no image could be used.
    """
    kept: tuple[Tensor, Tensor] | None = None  # made once: joining batches would take the memory twice
    done = 0
    with torch.no_grad():
        for images, targets in track(batches, title):
            batch = (extract(prepare(images)).float().cpu(), targets)
            if kept is None:
                kept = batch[0].new_empty((count, *batch[0].shape[1:])), targets.new_empty((count, *targets.shape[1:]))
            for rows, part in zip(kept, batch, strict=True):
                rows[done : done + len(part)] = part
            done += len(targets)
    if kept is None:
        raise ConfigError.of("data", title, "at least one image that can be used", "look at the skipped files")
    return kept[0][:done], kept[1][:done]


def keep(
    data: ImageData,
    splits: Mapping[str, Any],
    size: Callable[[Any], int],
    make: Callable[[Any, str], tuple[Tensor, Tensor]],
    budget: int,
) -> list[str]:
    """Put features in the place of images, split by split, as long as they fit.

    Parameters
    ----------
    data
        Data module that serves the features from then on.
    splits
        Images by the name of their split, ``"train"`` among them where nothing is augmented.
    size
        Function from images to the bytes that their features and targets take.
    make
        Function from images and the name of their split to features and targets.
    budget
        Most bytes in all.

    Returns
    -------
    list of str
        Splits that are kept.
    """
    kept = []
    for split, images in splits.items():
        needed = size(images)
        if needed > budget:
            log.info("features of %s would take %.1f GiB: not kept (task.cache_gib)", split, needed / 2**30)
            continue
        budget -= needed
        marks: Any = data.held_out if split == "train" else None
        data.substitute(split, FeatureSet(*make(images, split), marks))
        kept.append(split)
    return kept
