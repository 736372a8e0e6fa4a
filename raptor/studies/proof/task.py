"""Read off each layer of a frozen network what a probe finds there, beside the network's teacher.

Shapes: B images, L layers, F features, E outputs of the head, N patches.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from raptor.data.module import ImageData
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe
from raptor.models.teacher import Teacher, freeze
from raptor.studies.proof.measures import ColourMap, neighbour_agreement
from raptor.tasks.base import Task
from raptor.tasks.context import Context, check_classes, check_reads_images
from raptor.tasks.probes.build import open_backbone
from raptor.tasks.probes.features import compute
from raptor.tasks.probes.knn_ridge import knn_top1, ridge_fit

DIGITS = 3  # of a colour


class Readout(Task):
    """Probe every layer in closed form; compare neighbours in the head's outputs and colour maps with the teacher's.

    Nothing is trained: ``trainer.max_steps`` is 0. The product is the ridge probe of the last layer, with the accuracy
    of which ``val/ridge_top1`` is the number.

    Parameters
    ----------
    teacher, backbone
        The network, and its teacher, which may be the same.
    data
        Prepared data with classes.
    source
        Label and folder of the backbone.
    images
        Training images that the probes are fitted on, at most: the first of a fixed shuffle.
    neighbours
        Neighbours that are compared.
    maps
        Whether to keep colour maps.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.
    """

    one_process: ClassVar[bool] = True

    def __init__(
        self,
        teacher: Teacher,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        *,
        images: int,
        neighbours: int,
        maps: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer=torch.optim.SGD, schedule=None, **kwargs)  # takes no step
        self.networks = nn.ModuleDict({"teacher": freeze(teacher), "backbone": freeze(backbone)})
        self.data, self.source = data, source
        self.images, self.neighbours, self.maps = images, neighbours, maps
        self.probe = LinearProbe(backbone.layout.num_features(backbone.width), data.num_classes)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._labels: list[Tensor] = []
        self._details: dict[str, Any] = {}

    @property
    def teacher(self) -> Teacher:
        """The teacher."""
        return cast(Teacher, self.networks["teacher"])

    @property
    def backbone(self) -> Backbone:
        """The network."""
        return cast(Backbone, self.networks["backbone"])

    @property
    def frozen(self) -> nn.Module:
        """Both networks."""
        return self.networks

    @property
    def product(self) -> nn.Module:
        """The probe of the last layer."""
        return self.probe

    def describe(self) -> dict[str, Any]:
        """Describe the network."""
        backbone = self.backbone
        about = {"kind": self.name, "backbone": self.source, "num_layers": backbone.num_layers}
        for key in ("k", "boundaries"):
            if hasattr(backbone, key):
                about[key] = getattr(backbone, key)
        blocks = sum(p.numel() for p in cast(nn.Module, backbone.blocks).parameters())
        return {
            **about,
            "block_parameters": blocks,
            "teacher_block_parameters": sum(p.numel() for p in self.teacher.blocks.parameters()),
        }

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Skip a batch: there is nothing to train."""

    def layer_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ``[cls, mean patch]`` of every layer after the final norm, and the head's output.

        Parameters
        ----------
        images
            Normalised images.

        Returns
        -------
        tuple of Tensor
            Features of the layers 0..L, ``(B, L + 1, F)``, and outputs ``(B, E)``.
        """
        backbone = self.backbone
        x = last = backbone.embed(images)
        kept = [backbone.layout.features(backbone.norm(x))]
        for last in backbone.steps(x):
            kept.append(backbone.layout.features(backbone.norm(last)))
        return torch.stack(kept, dim=1).float(), backbone.head(last).float()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep the features of a batch."""
        images, labels = batch
        features, outputs = self.layer_features(images)
        same = self.backbone is self.teacher
        theirs = outputs if same else self.teacher.head(self.teacher.run_to(self.teacher.embed(images))).float()
        self._parts.append((features.cpu(), outputs.cpu(), theirs.cpu()))
        self._labels.append(labels.cpu())

    def on_validation_epoch_end(self) -> None:
        """Fit the probes on training images, and score them."""
        features, ours, theirs = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        labels = torch.cat(self._labels)
        self._parts, self._labels = [], []
        train, train_labels = self._training_features()
        accuracy: dict[str, list[float]] = {"ridge": [], "knn": []}
        for layer in range(train.shape[1]):
            rows = (train[:, layer], train_labels), (features[:, layer], labels)
            weight, offset = ridge_fit(rows[0])
            scores = rows[1][0] @ weight.float() + offset.float()
            accuracy["ridge"].append(float((scores.argmax(1) == labels).float().mean()))
            accuracy["knn"].append(knn_top1(*rows))
        linear = self.probe.linear
        with torch.no_grad():  # classes that no training image has keep their random weights, and lose by their offset
            linear.weight[: weight.shape[1]] = weight.T.to(linear.weight)
            linear.bias.fill_(-1e3)[: len(offset)] = offset.to(linear.bias)
        agreement = neighbour_agreement(ours, theirs, self.neighbours)
        last = accuracy["ridge"][-1]
        self.log("val/ridge_top1", last)
        self.log("val/knn_top1", accuracy["knn"][-1])
        self.log("val/neighbour_nearest", agreement["nearest"])
        self.log("val/neighbour_overlap", agreement["overlap"])
        self._details = {
            "accuracy": accuracy,
            "standard_error": sqrt(last * (1 - last) / len(labels)),
            "images": {"train": len(train_labels), "val": len(labels)},
            "neighbours": {"compared": self.neighbours, **agreement},
            **({"maps": self._colour_maps()} if self.maps else {}),
        }

    def _training_features(self) -> tuple[Tensor, Tensor]:
        with self.trainer.precision_plugin.forward_context():
            return compute(
                self.data.train_images_dataloader(self.images),
                min(self.images, len(self.data.train_images)),
                lambda images: self.layer_features(images)[0],
                lambda images: self.data.normalize(images.to(self.device)),
                "features",
            )

    def _colour_maps(self) -> dict[str, Any]:
        """Compute colours ``(layers, photographs, N, 3)`` of the layers 0..L of the network, and of its teacher."""
        images = self.data.normalize(sample_photographs(self.teacher.input_shape).to(self.device))
        maps: dict[str, Any] = {"grid": list(self.teacher.grid), "teacher": [], "backbone": []}
        with torch.no_grad():
            layers = [[x, *net.steps(x)] for net in (self.teacher, self.backbone) for x in [net.embed(images)]]
        for theirs, ours in zip(*layers, strict=True):
            patches = [
                net.layout.select(x, "patches").cpu() for net, x in ((self.teacher, theirs), (self.backbone, ours))
            ]
            colours = ColourMap(patches[0])
            for name, x in zip(("teacher", "backbone"), patches, strict=True):
                maps[name].append(np.round(colours(x).numpy(), DIGITS).tolist())
        return maps

    def details(self) -> dict[str, Any]:
        """Return accuracies by layer, agreement of neighbours and colour maps."""
        return self._details


def build_readout(context: Context, folder: str | None, label: str | None, arguments: dict[str, Any]) -> Readout:
    """Build the task on the teacher, or on the model in a folder."""
    check_reads_images(context, arguments["name"])
    check_classes(context.data, arguments["name"])
    backbone, source = open_backbone(context, folder, label)
    return Readout(context.teacher, backbone, context.data, source, seed=context.seed, **arguments)


def sample_photographs(input_shape: tuple[int, int, int]) -> Tensor:
    """Return the two photographs that scikit-learn ships, cropped to the shape of an input: uint8 ``(2, C, H, W)``."""
    channels, height, width = input_shape
    pictures = []
    for pixels in load_sample_images().images:
        picture = Image.fromarray(pixels)
        scale = max(height / picture.height, width / picture.width)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height)).convert("L" if channels == 1 else "RGB")
        pictures.append(torch.from_numpy(np.array(picture)).reshape(height, width, channels).permute(2, 0, 1))
    return torch.stack(pictures)
