"""Get the teacher's activations: computed in the step, or read from a store."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raptor.data.module import ImageData
from raptor.data.sampling import Draw
from raptor.data.skipping import nothing_left
from raptor.data.store.layout import Field
from raptor.data.store.reading import Reader
from raptor.errors import ConfigError, SampleError, StoreError
from raptor.models.io import tensors_fingerprint
from raptor.models.teacher import Teacher
from raptor.utils.files import user_path

CONTENT = "activations"
# options of a ViT that its layers do not depend on in eval mode
WITHOUT_EFFECT = ("num_classes", "drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
log = logging.getLogger(__name__)
Activations = dict[int, Tensor]  # layer to (B, N, D)


class ActivationSource(ABC):
    """Source of activations of a distillation. All give the same batches for the same seed and step.

    Attributes
    ----------
    reads_images
        Whether training batches are images.
    """

    reads_images: ClassVar[bool] = False

    @abstractmethod
    def connect(self, data: ImageData, teacher: Teacher, layers: Collection[int]) -> None:
        """Make the training batches of ``data`` what this source needs, for these layers of the teacher.

        Raises
        ------
        RaptorError
            If the source cannot give them.
        """

    @abstractmethod
    def activations(self, teacher: Teacher, batch: Any, layers: Collection[int]) -> Activations:
        """Return layers of the teacher, ``(B, N, D)`` each, from the first entry of a training batch."""


class Online(ActivationSource):
    """Images in; the frozen teacher runs in the step, no deeper than needed."""

    reads_images: ClassVar[bool] = True

    def connect(self, data: ImageData, teacher: Teacher, layers: Collection[int]) -> None:
        """Do nothing: batches of images are what the data gives."""

    def activations(self, teacher: Teacher, batch: Any, layers: Collection[int]) -> Activations:
        """Run the teacher on normalised images ``(B, C, H, W)``."""
        with torch.no_grad():
            embedded = teacher.embed(batch)
            acts = {0: embedded} if 0 in layers else {}
            for layer, x in enumerate(teacher.steps(embedded, 0, max(layers)), start=1):
                if layer in layers:
                    acts[layer] = x
        return acts


class Cached(ActivationSource):
    """Layers read from a store that ``raptor.extract`` wrote; the teacher does not run.

    Parameters
    ----------
    store
        Folder of the store.
    """

    def __init__(self, store: str | Path) -> None:
        self.store = user_path("activations.store", store)

    def connect(self, data: ImageData, teacher: Teacher, layers: Collection[int]) -> None:
        """Check that the store is of this teacher, data and transform, and read batches from it from now on."""
        if data.augment is not None:
            expected = "online where data.augment is set, since stored activations cannot be augmented"
            raise ConfigError.of("activations", "cached", expected, "set data.augment=null, or activations=online")
        if not self.store.is_dir():
            fix = "make it with python -m raptor.extract and the same teacher and data, or set activations=online"
            raise StoreError.of("activations.store", self.store, "a store of activations", fix)
        reader = Reader(self.store)
        have = {int(name.removeprefix("layer")) for name in reader.store.fields if name.startswith("layer")}
        if missing := sorted(set(layers) - have):
            expected = f"the layers {_ranges(layers)}, of which {_ranges(missing)} are missing (it has {_ranges(have)})"
            fix = "extract them to another store=..., or set activations=online"
            raise StoreError.of("activations.store", self.store, expected, fix)
        content = {"samples": len(data.train_images), "about": describe_activations(teacher, data, "train")}
        reader.store.require(content, "extract to another store=..., or set activations=online")
        for reason in reader.store.left_out.values():
            data.unusable(SampleError(reason))
        made = reader.store.about
        log.info(
            "%s: layers as %s, computed in %s on %s in batches of %d",
            self.store,
            reader.store.fields[layer_field(min(layers))].dtype,
            *(made[key] for key in ("precision", "device", "batch_size")),
        )
        if made["batch_size"] != data.batch_size:
            log.warning(
                "batches of %d are trained on, of %d were extracted: equal to online training but for rounding",
                data.batch_size,
                made["batch_size"],
            )
        data.substitute("train", StoredActivations(reader, sorted(layers)))

    def activations(self, teacher: Teacher, batch: Any, layers: Collection[int]) -> Activations:
        """Return the layers as they were read, in float32."""
        return {layer: x.float() for layer, x in batch.items()}


class StoredActivations:
    """A store as a dataset of whole batches: ``({layer: (B, N, D)}, labels)``, without samples that were left out.

    Parameters
    ----------
    reader
        The store.
    layers
        Layers to read.
    """

    def __init__(self, reader: Reader, layers: Sequence[int]) -> None:
        self.reader, self.layers, self.left_out = reader, layers, reader.store.left_out

    def __len__(self) -> int:
        return self.reader.store.samples

    def __getitems__(self, draws: Sequence[Draw]) -> tuple[Activations, Tensor]:
        names = [*map(layer_field, self.layers), "label"]
        samples = [draw.sample for draw in draws if draw.sample not in self.left_out]
        if not samples:
            raise nothing_left(next(iter(self.left_out.values())))
        *acts, labels = self.reader.read(samples, names)
        return dict(zip(self.layers, acts, strict=True)), labels


def layer_field(layer: int) -> str:
    """Return the name of the field of a layer."""
    return f"layer{layer:02d}"


def activation_fields(teacher: Teacher, layers: Sequence[int], dtype: str) -> list[Field]:
    """Return the fields of a store of some layers of a teacher."""
    shape = (teacher.layout.num_tokens, teacher.width)
    return [*(Field(layer_field(layer), dtype, shape) for layer in layers), Field("label", "int64", ())]


def describe_activations(teacher: Teacher, data: ImageData, split: str) -> dict[str, Any]:
    """Describe activations by plain data that differs from that of others: split, images, transform, teacher."""
    return {
        "content": CONTENT,
        "split": split,
        **data.describe(data.images(split)),
        "teacher": {
            "name": teacher.spec.name,
            "options": {k: v for k, v in teacher.spec.options.items() if k not in WITHOUT_EFFECT},
            "layers": teacher.num_layers,
            "tokens": teacher.layout.num_tokens,
            "width": teacher.width,
            "mean": list(teacher.spec.mean),
            "std": list(teacher.spec.std),
            "sha256": trunk_fingerprint(teacher),
        },
    }


def trunk_fingerprint(teacher: nn.Module) -> str:
    """Return the SHA-256 of the weights that activations depend on: all but final norm, pooling and heads."""
    after = ("norm.", "fc_norm.", "head", "attn_pool.")
    state: Mapping[str, Tensor] = teacher.state_dict()
    return tensors_fingerprint(
        {
            name: x
            for name, x in state.items()
            if not name.removeprefix("shell.vit.").startswith(after) and not name.startswith("shell.linear_head.")
        }
    )


def _ranges(layers: Collection[int]) -> str:
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}..{p[-1]}" for p in parts) or "none"
