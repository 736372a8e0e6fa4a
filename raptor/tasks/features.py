"""Features of frozen backbones that are computed once: exact, where the images are the same every time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from raptor.data.sampling import Draw

log = logging.getLogger(__name__)


class Features(NamedTuple):
    """Features in the place of images in a batch.

    Attributes
    ----------
    x
        ``(B, ...)``.
    """

    x: Tensor


class FeatureSet:
    """Features with their targets as a dataset of whole batches ``(Features, targets)``.

    Parameters
    ----------
    features, targets
        ``(n, ...)`` each, on the CPU.
    marks
        One flag for each sample, to come with its target; None leaves targets alone.
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
    batches: Iterable[Any], extract: Callable[[Tensor], Tensor], prepare: Callable[[Any], Any], what: str
) -> tuple[Tensor, Tensor]:
    """Features and targets of all batches, on the CPU.

    Parameters
    ----------
    batches
        Pairs of images and targets, as a loader gives them.
    extract
        Normalised images to features.
    prepare
        Brings images to the device and normalises them.
    what
        What the progress bar says.
    """
    found = []
    with torch.no_grad():
        for images, targets in track(batches, what, transient=True):
            found.append((extract(prepare(images)).float().cpu(), targets))
    features, targets = (torch.cat(parts) for parts in zip(*found, strict=True))
    return features, targets
