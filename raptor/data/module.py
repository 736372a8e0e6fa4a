"""The base of all datamodules: image datasets in, normalised batches out."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from raptor.data.loading import Loader
from raptor.data.pixels import SPLITS, CachedImages, open_pixels
from raptor.data.sampling import Images, StepSampler, TrainingSet, Transform, as_is, limit_batch
from raptor.data.skipping import ON_ERROR, Omissions, SkippingLoader
from raptor.errors import ConfigError, StoreError
from raptor.utils.files import user_path
from raptor.utils.signals import ignore_signals_in_worker

HELD_OUT = "held_out"  # name of the training images that select in place of the validation images
HELD_OUT_SHARE = 0.1  # of the training images


class ImageData(Omissions, LightningDataModule, ABC):
    """Images with targets for training and for validation.

    Datasets give uint8 images ``(C, H, W)``; they become float32 and are normalised on the device that the
    model is on.

    Parameters
    ----------
    name
        Name for results.
    batch_size
        Images per training step over all processes; all of them where they are fewer.
    eval_batch_size
        Images per validation step and process.
    num_workers
        Worker processes of a loader; 0 loads in the main process.
    augment
        Random transform of a training image and its target, as torchvision's v2 transforms are; or a partial
        function that makes one for a ``size``. None: the images as they are for validation.
    pixels
        A pixel cache to take the images from (``raptor.extract content=pixels``), or None to make them anew
        every time. The images are the same, byte for byte; not to be combined with ``augment``.
    on_error
        What to do about a file that cannot be used: ``raise``, or ``skip`` to leave it out, count and report it.
    """

    target = "class"  # what comes with an image: class, labels (a map) or depth (a map)

    def __init__(
        self,
        name: str,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        augment: Transform | functools.partial[Transform] | None = None,
        pixels: str | Path | None = None,
        on_error: str = "raise",
    ) -> None:
        super().__init__()
        for key, value in (("data.batch_size", batch_size), ("data.eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ConfigError.of(key, value, "a positive integer", "set 1 or more")
        if on_error not in ON_ERROR:
            raise ConfigError.of("data.on_error", on_error, " or ".join(ON_ERROR), "choose one of them")
        if augment is not None and pixels is not None:
            expected = "null where data.augment is set, since cached images are cropped already"
            fix = "set data.pixels=null to augment the originals, or data.augment=null"
            raise ConfigError.of("data.pixels", pixels, expected, fix)
        self.eval_splits: tuple[str, ...] = ("val",)  # what a validation during training evaluates, in order
        self.substitutes: dict[str, Any] = {}  # by split: a dataset of whole batches in the place of its images
        self.train_images: Images
        self.val_images: Images
        self.held_out: np.ndarray | None = None  # one flag for each training image
        self.name: str = name
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.augment, self.on_error = num_workers, augment, on_error
        self.pixels = None if pixels is None else user_path("data.pixels", pixels)
        self.seed, self.input_shape = 0, (0, 0, 0)
        self._mean = self._std = torch.zeros(1)

    @abstractmethod
    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[Images, Images]:
        """Return training and validation images of some channels, height and width.

        Raises
        ------
        ConfigError
            If the images are missing or cannot have this shape.
        """

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where the targets are none."""
        return 0

    def originals(self) -> Images:
        """Return training images as the random transform takes them: here, as they are for validation."""
        return self.train_images

    def groups(self) -> Sequence[Hashable] | None:
        """Return the group of each training image that is held out as a whole (a scene); None: each stands alone."""
        return None

    def transform(self, input_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Describe, as plain data, how an image gets some channels, height and width: by bicubic resize."""
        return {"channels": input_shape[0], "size": list(input_shape[1:]), "resize": "bicubic"}

    def digest(self, images: Any) -> str:
        """Return a digest that is equal for equal lists of images; it need not read them all."""
        return hashlib.sha256(f"{self.name} {len(images)}".encode()).hexdigest()

    def images(self, split: str) -> Images:
        """Return the images of ``"train"`` or ``"val"``."""
        return {"train": self.train_images, "val": self.val_images}[split]

    def describe(self, images: Images) -> dict[str, Any]:
        """Describe images by plain data that differs from that of others; stores made from them keep it."""
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
        self.batch_size = limit_batch(self.batch_size, len(self.train_images), self.name)
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
                expected = f"a cache of the {split} images that are here, it was made of other {split} images"
                raise StoreError.of("data.pixels", self.pixels, expected, "name their own cache, or set it to null")

    def substitute(self, split: str, samples: Any) -> None:
        """Serve a dataset of whole batches in the place of the images of ``train``, or of what eval_images names."""
        self.substitutes[split] = samples

    def evaluate_on(self, splits: Sequence[str]) -> None:
        """Choose what a validation during training evaluates, in order: ``val``, ``held_out``, or both.

        Raises
        ------
        ConfigError
            If nothing can be held out.
        """
        if HELD_OUT in splits:
            self.hold_out()
        self.eval_splits = tuple(splits)

    def hold_out(self, share: float = HELD_OUT_SHARE) -> None:
        """Set a fixed share of the training images apart, whole groups only, the same for every seed.

        Training targets come as ``(target, held out)`` from then on.

        Raises
        ------
        ConfigError
            If nothing would be left on one side.
        """
        groups: Sequence[Hashable] = self.groups() or range(len(self.train_images))
        sizes = Counter(groups)
        names, chosen, held = list(sizes), set(), 0
        for i in np.random.default_rng(0).permutation(len(names)):
            if held >= share * len(groups):
                break
            chosen.add(names[i])
            held += sizes[names[i]]
        self.held_out = np.array([group in chosen for group in groups])
        if self.held_out.all() or not self.held_out.any():
            expected = f"enough groups of training images to hold {share:.0%} out, it has {len(names)}"
            raise ConfigError.of("data", self.name, expected, "take more images, or no rule that holds images out")

    def eval_images(self, split: str) -> Images:
        """Return the images to evaluate on: ``"val"``, or the ``"held_out"`` share of training, not augmented."""
        if split == "val":
            return self.val_images
        assert self.held_out is not None
        return Subset(self.training_images_as_val(), self.held_out.nonzero()[0].tolist())  # type: ignore[arg-type]

    def training_images_as_val(self) -> Images:
        """Return training images, prepared as validation images are."""
        return self.train_images

    def loader(self, dataset: Any, *, persistent: bool = False, **kwargs: Any) -> DataLoader[Any]:
        """Return a loader with the workers of this configuration."""
        options = {
            "num_workers": self.num_workers,
            "persistent_workers": persistent and self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "worker_init_fn": ignore_signals_in_worker,
            **kwargs,
        }
        if self.on_error == "skip" and "collate_fn" not in options:
            return SkippingLoader(dataset, self.report_skipped, **options)
        return Loader(dataset, **options)

    def _augment(self) -> Transform | None:
        augment = self.augment
        return augment(size=self.output_size) if isinstance(augment, functools.partial) else augment

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the images that datasets and random transforms give."""
        return self.input_shape[1:]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the whole training from the step on that the trainer has reached."""
        trainer = self.trainer
        if trainer is None:
            fix = "call Trainer.fit(task, datamodule=data)"
            raise ConfigError.of("data.trainer", None, "the trainer that draws the batches", fix)
        sampler = StepSampler(
            len(self.train_images),
            self.batch_size,
            trainer.max_steps * trainer.accumulate_grad_batches,
            self.seed,
            first_step=lambda: trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if (samples := self.substitutes.get("train")) is not None:
            return self.loader(samples, batch_sampler=sampler, collate_fn=as_is)
        images = self.train_images if self.augment is None else self.originals()
        marks: Any = self.held_out
        return self.loader(TrainingSet(images, self._augment(), self.seed, marks), batch_sampler=sampler)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return a loader for each of ``eval_splits``, in order; after the training for ``val`` alone."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return [self.eval_loader(split) for split in (self.eval_splits if fitting else ("val",))]

    def eval_loader(self, split: str) -> DataLoader[Any]:
        """Return all images of :meth:`eval_images` in order."""
        if (samples := self.substitutes.get(split)) is not None:
            return DataLoader(samples, batch_size=self.eval_batch_size, collate_fn=as_is)
        images: Any = self.eval_images(split)
        if (trainer := self.trainer) is not None and trainer.world_size > 1:  # scores are summed over all processes
            images = Subset(images, range(trainer.global_rank, len(images), trainer.world_size))
        return self.loader(images, persistent=True, batch_size=self.eval_batch_size)

    def train_images_dataloader(self, limit: int | None = None) -> DataLoader[Any]:
        """Return the first ``limit`` training images of a fixed shuffle, once, without augmentation."""
        order = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(0))
        chosen: Subset[Any] = Subset(self.train_images, order[:limit].tolist())  # type: ignore[arg-type]
        return self.loader(chosen, batch_size=self.eval_batch_size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Normalise the uint8 images of a batch on its device; features are left as they are."""
        images, targets = batch
        return (self.normalize(images) if isinstance(images, Tensor) else images), targets

    def normalize(self, images_BCHW: Tensor) -> Tensor:
        """Turn uint8 images ``(B, C, H, W)`` into normalised float32."""
        self._mean, self._std = (x.to(images_BCHW.device) for x in (self._mean, self._std))  # copied once, then no wait
        return (images_BCHW.float() / 255 - self._mean) / self._std

    def summary(self) -> dict[str, Any]:
        """Return plain data for results: name, sizes and what was left out."""
        sizes = {"name": self.name, "train": len(self.train_images), "val": len(self.val_images)}
        return sizes | self.omissions()
