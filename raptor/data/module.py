"""The base of all datamodules: two image datasets in, normalised batches out."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from raptor.data.pixels import SPLITS, CachedImages, open_pixels
from raptor.data.sampling import Images, StepSampler, TrainingSet
from raptor.errors import ConfigError, StoreError


class ImageData(LightningDataModule, ABC):
    """Labelled images for training and for validation.

    Datasets give uint8 images ``(C, H, W)``; they become float32 and are normalised on the device that the
    model is on.

    Parameters
    ----------
    name
        Name for results.
    batch_size
        Images per training step over all processes.
    eval_batch_size
        Images per validation step and process.
    num_workers
        Worker processes of a loader; 0 loads in the main process.
    augment
        Random transform of a training image, or None.
    pixels
        A pixel cache to take the images from (``raptor.extract content=pixels``), or None to make them anew
        every time. The images are the same, byte for byte.
    """

    def __init__(
        self,
        name: str,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        augment: Callable[[Tensor], Tensor] | None = None,
        pixels: str | Path | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1 or eval_batch_size < 1:
            raise ConfigError(f"data.batch_size={batch_size} and data.eval_batch_size={eval_batch_size} start at 1")
        self.train_samples: Any = None  # a dataset of whole batches that takes the place of the training images
        self.train_images: Images
        self.val_images: Images
        self.name: str = name
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.augment, self.pixels = num_workers, augment, pixels
        self.seed, self.steps = 0, 0
        self.input_shape = (0, 0, 0)
        self._mean = self._std = torch.zeros(1)

    @abstractmethod
    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Training and validation images of the asked channels, height and width.

        Raises
        ------
        ConfigError
            If the images are missing or cannot have this shape.
        """

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes."""

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Plain data that says how an image becomes one of the asked channels, height and width: by bicubic resize."""
        return {"channels": input_shape[0], "size": list(input_shape[1:]), "resize": "bicubic"}

    def digest(self, images: Any) -> str:
        """Digits that are equal for equal lists of images, as far as can be told without reading them all."""
        return hashlib.sha256(f"{self.name} {len(images)}".encode()).hexdigest()

    def images(self, split: str) -> Images:
        """Images of ``"train"`` or ``"val"``."""
        return {"train": self.train_images, "val": self.val_images}[split]

    def about(self, images: Images) -> dict[str, Any]:
        """Plain data that tells these images from others: a store of anything made from them keeps it."""
        return {
            "data": self.name,
            "transform": self.transform(self.input_shape),
            "digest": images.digest if isinstance(images, CachedImages) else self.digest(images),
        }

    def prepare(
        self, input_shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float], seed: int = 0
    ) -> None:
        """Load the datasets in the form that a model expects.

        Parameters
        ----------
        input_shape
            Channels, height and width of the model's input.
        mean, std
            Normalisation, one value per channel.
        seed
            Seed of sampling and augmentation.
        """
        self.seed = seed
        if self.pixels is None:
            self.train_images, self.val_images = self.datasets(input_shape)
        else:
            self.train_images, self.val_images = open_pixels(self.pixels, self.name, self.transform(input_shape))
            self._check_pixels(input_shape)
        self.input_shape = input_shape
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))

    @property
    def has_originals(self) -> bool:
        """Whether the images that a pixel cache was made of are here."""
        return True

    def _check_pixels(self, input_shape: tuple[int, int, int]) -> None:
        if not self.has_originals:
            return
        for split, images in zip(SPLITS, self.datasets(input_shape), strict=True):
            cached = self.images(split)
            if isinstance(cached, CachedImages) and cached.digest != self.digest(images):
                raise StoreError(
                    f"data.pixels={self.pixels} was made of other {split} images than those that are here: name their "
                    "own cache, or null"
                )

    def loader(self, dataset: Any, persistent: bool = False, **kwargs: Any) -> DataLoader:
        """A loader with the workers of this configuration."""
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            persistent_workers=persistent and self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )

    def train_dataloader(self) -> DataLoader:
        """Batches of the whole training, beginning with the step that the trainer has reached."""
        trainer = self.trainer
        if trainer is None or self.batch_size % trainer.world_size:
            raise ConfigError(f"data.batch_size={self.batch_size} does not divide evenly over the processes")
        sampler = StepSampler(
            len(self.train_images),
            self.batch_size,
            self.steps,
            self.seed,
            first_step=lambda: trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if self.train_samples is not None:
            return self.loader(self.train_samples, batch_sampler=sampler, collate_fn=_as_is)
        return self.loader(TrainingSet(self.train_images, self.augment, self.seed), batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """All validation images in order."""
        return self.loader(self.val_images, persistent=True, batch_size=self.eval_batch_size)

    def train_images_dataloader(self, limit: int | None = None) -> DataLoader:
        """The first ``limit`` training images of a fixed shuffle, once, without augmentation."""
        order = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(0))
        chosen: Subset[Any] = Subset(self.train_images, order[:limit].tolist())  # type: ignore[arg-type]
        return self.loader(chosen, batch_size=self.eval_batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Finish a batch on its device: uint8 images to normalised float32; activations are left as they are."""
        images, labels = batch
        return (self.normalize(images) if isinstance(images, Tensor) else images), labels

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """Uint8 images to normalised float32."""
        mean, std = self._mean.to(images_BCHW.device), self._std.to(images_BCHW.device)
        return (images_BCHW.float() / 255 - mean) / std

    def summary(self) -> dict[str, Any]:
        """Plain data about the data, for results."""
        return {"name": self.name, "train": len(self.train_images), "val": len(self.val_images)}


def _as_is(batch: Any) -> Any:
    return batch
