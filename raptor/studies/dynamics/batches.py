"""Images of a split, in a fixed shuffle, for measuring: any of them, any number of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from raptor.data.module import ImageData
from raptor.data.pixels import SPLITS
from raptor.errors import ConfigError

LEAST = 4


class ImageBatches:
    """Images to measure on; which they are depends on the split and their number alone.

    Parameters
    ----------
    data
        Prepared data.
    split
        ``"train"`` or ``"val"``.
    count
        How many of its images, None for all.
    batch_size
        Images at a time.
    device, dtype
        Where batches are put, and as what.

    Raises
    ------
    ConfigError
        If a value does not fit.
    """

    def __init__(
        self,
        data: ImageData,
        split: str,
        count: int | None,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError.of("split", split, " or ".join(SPLITS), "choose one")
        for key, value, least in (("images", count, LEAST), ("batch_size", batch_size, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError.of(key, value, f"integer >= {least}", f"set it to {least} or more")
        if data.on_error == "skip":
            raise ConfigError.of(
                "data.on_error", "skip", "raise, since all images are measured", "set data.on_error=raise"
            )
        self.data, self.split, self.batch_size, self.device, self.dtype = data, split, batch_size, device, dtype
        images = data.images(split)
        self._images: Any = images
        self._order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].tolist()
        if len(self._order) < LEAST:
            expected = f"{LEAST} images or more (data={data.name} has {len(images)})"
            raise ConfigError.of("split", split, expected, "choose another split or data set")

    def __len__(self) -> int:
        return len(self._order)

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels; 0 where the targets are no classes."""
        return self.data.num_classes if self.data.target == "class" else 0

    def number(self, count: int) -> int:
        """How many batches so many images make."""
        return -(-count // self.batch_size)

    def batches(self, positions: Sequence[int]) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
        """Iterate over batches of chosen images, in the given order.

        Yields
        ------
        positions, images, labels
            Normalised images ``(B, C, H, W)`` on the device, and labels ``(B,)`` or None.
        """
        chosen: Subset[Any] = Subset(self._images, [self._order[i] for i in positions])
        done = 0
        for images, targets in self.data.loader(chosen, batch_size=self.batch_size):
            batch = list(positions[done : done + len(images)])
            done += len(images)
            moved = self.data.normalize(images.to(self.device, non_blocking=True))
            yield batch, moved.to(self.dtype), targets if self.num_classes else None
