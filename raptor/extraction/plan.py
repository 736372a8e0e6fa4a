"""Plan what stores are to hold: images, or layers of a teacher."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.data.module import ImageData
from raptor.data.pixels import CONTENT as PIXELS
from raptor.data.pixels import pixel_fields
from raptor.data.sampling import Images
from raptor.data.skipping import Attempts
from raptor.data.sources import Online, activation_fields, describe_activations, layer_field
from raptor.data.store.layout import DTYPES, Field, Store
from raptor.errors import ConfigError
from raptor.extraction.options import ExtractOptions
from raptor.models.teacher import Teacher, freeze
from raptor.utils.devices import default_device

Batch = dict[str, Tensor]
Make = Callable[[Tensor], Batch]  # uint8 images (B, C, H, W) to fields without the label


@dataclass(frozen=True, eq=False)
class Extraction:
    """One store to fill: what it is to hold, and how images become that.

    Parameters
    ----------
    folder
        Folder of the store.
    data
        Prepared data.
    images
        Its images of one split.
    fields
        What is stored of each image.
    make
        Turns a batch of images into fields.
    about
        What distinguishes this store from others.
    """

    folder: Path
    data: ImageData
    images: Images
    fields: list[Field]
    make: Make
    about: dict[str, Any]

    def __post_init__(self) -> None:
        if self.data.target != "class":
            expected = f"data with one class for each image, this has {self.data.target}"
            raise ConfigError.of("data", self.data.name, expected, "choose other data")

    def open(self, shard_size: int) -> Store:
        """Open the store, made if missing; see :meth:`Store.create`."""
        return Store.create(self.folder, self.fields, len(self.images), shard_size, self.about)

    def attempts(self) -> Attempts:
        """Return the images with, for each, why it cannot be used."""
        return Attempts(self.images, self.data.input_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample."""
        return sum(field.nbytes for field in self.fields)

    @property
    def what(self) -> str:
        """Shape and type of a sample, human-readable."""
        first = self.fields[0]
        return f"{len(self.fields) - 1} x {'x'.join(map(str, first.shape))} {first.dtype}"

    def seconds_per_sample(self) -> float:
        """Measure the time to load and compute one sample on a second batch; writing is not included."""
        images: Any = self.attempts() if self.data.on_error == "skip" else self.images
        for _ in range(2):
            begin = time.perf_counter()
            self.make(torch.stack([images[i % len(images)][0] for i in range(self.data.batch_size)]))
        return (time.perf_counter() - begin) / self.data.batch_size


def pixels(folder: Path, data: ImageData, split: str) -> Extraction:
    """Store the images as the transform leaves them."""
    images = data.images(split)
    made_of = {"content": PIXELS, "split": split, **data.describe(images), "classes": getattr(images, "classes", None)}
    return Extraction(folder, data, images, pixel_fields(data.input_shape), lambda x: {"pixels": x}, made_of)


def layers(
    folder: Path, data: ImageData, split: str, teacher: Teacher, which: Sequence[int], dtype: str, precision: str
) -> Extraction:
    """Store layers of a teacher.

    Parameters
    ----------
    folder, data, split
        Where to, and which images.
    teacher
        The teacher, frozen, on the device that is to compute.
    which
        Its layers to store.
    dtype
        What they are stored as.
    precision
        ``32-true``, or ``bf16-mixed`` to run the teacher under bfloat16 autocast.
    """
    source, device = Online(), next(teacher.parameters()).device

    def make(images_BCHW: Tensor) -> Batch:
        # always full batches, as in training: kernels choose their way, and so their rounding, by the shape
        fill = images_BCHW[:1].expand(data.batch_size - len(images_BCHW), -1, -1, -1)
        batch = data.normalize(torch.cat([images_BCHW, fill]).to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            acts = source.activations(teacher, batch, which)
        # blocking copies: the writer must not read before they have arrived
        return {layer_field(layer): x[: len(images_BCHW)].to(DTYPES[dtype]).cpu() for layer, x in acts.items()}

    how = {"precision": precision, "batch_size": data.batch_size, "device": device.type}
    made_of = describe_activations(teacher, data, split) | how
    return Extraction(folder, data, data.images(split), activation_fields(teacher, which, dtype), make, made_of)


def choose_layers(layers: Any, num_layers: int) -> list[int]:
    """Choose the layers to store; None takes all.

    Raises
    ------
    ConfigError
        If one does not exist.
    """
    if layers is None:
        return list(range(num_layers + 1))
    chosen = [layers] if isinstance(layers, int) else sorted(set(layers))
    if not chosen or not all(isinstance(x, int) and 0 <= x <= num_layers for x in chosen):
        expected = f"layers of the teacher, 0..{num_layers}"
        raise ConfigError.of("layers", layers, expected, "list some, such as layers=[7,8,9,10], or set null for all")
    return chosen


def choose_device(name: str, rank: int) -> torch.device:
    """Choose the device of one of several processes; ``auto`` takes a GPU where there is one.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    if name == "cpu":
        return torch.device("cpu")
    device = default_device(rank)
    if name not in ("auto", device.type):
        raise ConfigError.of("device", name, "a device of this machine", "choose auto, cpu or, with a GPU, cuda")
    return device


def plan(options: ExtractOptions) -> list[Extraction]:
    """List the stores of an extraction, with teacher and data ready to fill them.

    Raises
    ------
    RaptorError
        If teacher or data cannot be had, or do not fit.
    """
    torch.manual_seed(options.seed)
    teacher = freeze(options.teacher.build())
    made_of_pixels = options.content == PIXELS
    data = options.data.build(**({"pixels": None} if made_of_pixels else {}))
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    if made_of_pixels:
        return [pixels(folder, data, split) for split, folder in options.folders().items()]
    which = choose_layers(options.layers, teacher.num_layers)
    teacher.to(choose_device(options.device, rank=int(os.environ.get("LOCAL_RANK", 0))))
    return [
        layers(folder, data, split, teacher, which, options.dtype, options.precision)
        for split, folder in options.folders().items()
    ]
