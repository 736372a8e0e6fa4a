"""Score trivial predictions of the teacher's layers: the floors that a student must exceed.

Shapes: B images, L layers, N tokens, D width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raptor.data.module import ImageData
from raptor.models.tokens import TokenLayout
from raptor.tasks.distillation.fidelity import Curves, Fidelity
from raptor.utils.files import atomic_write

log = logging.getLogger(__name__)
RIDGE = 1e-6  # penalty of the affine map, in units of the mean variance of a channel of layer 0
HEADLINE = "r2_centered"


@dataclass(frozen=True)
class FloorSettings:
    """How the affine floor is fitted.

    Parameters
    ----------
    images
        Training images, at most.
    cache
        Folder for fitted maps, by teacher, images and precision; None keeps none.
    """

    images: int
    cache: Path | None


class AffineFit:
    """Accumulate the sums of one ridge regression of every layer on layer 0, for each token type.

    The map of a layer is ``y_p = mean_p + W (x_p - mean_0p)`` with one matrix W for all tokens p of a type, and the
    means over training images at each token and channel. With W = 0 it is the mean image.

    Parameters
    ----------
    layout
        Token layout.
    """

    def __init__(self, layout: TokenLayout) -> None:
        self.layout, self.images = layout, 0
        self.total_LND: Tensor | None = None
        self.products: dict[str, Tensor] = {}  # sums of x_0 x_l^T, (L + 1, D, D), of types that vary in layer 0

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add a batch: layers 0..L of the teacher, each ``(B, N, D)``."""
        first = layers[0].double()
        if self.total_LND is None:
            self.total_LND = first.new_zeros(len(layers), *first.shape[1:])
            for kind in self.layout.types:
                x = self.layout.select(first, kind)
                if bool((x != x[:1]).any()):  # class token and registers are constant there
                    self.products[kind] = x.new_zeros(len(layers), x.shape[-1], x.shape[-1])
        self.images += len(first)
        for index, layer in enumerate(layers):
            y = layer.double()
            self.total_LND[index] += y.sum(0)
            for kind, sums in self.products.items():
                x, of_kind = (self.layout.select(z, kind).flatten(0, 1) for z in (first, y))
                sums[index] += x.T @ of_kind

    def solve(self) -> AffineMaps:
        """Solve the normal equations."""
        assert self.total_LND is not None
        mean_LND, weights = self.total_LND / self.images, {}
        for kind, sums in self.products.items():
            mean = self.layout.select(mean_LND, kind)
            centred = sums - self.images * torch.einsum("nd,lne->lde", mean[0], mean)
            gram, scale = centred[0], centred[0].diagonal().mean()
            if scale > 1e-9 * sums[0].diagonal().mean():
                penalty = RIDGE * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
                solved = torch.linalg.solve(gram + penalty, centred[1:])
                weights[kind] = solved.float()
        return AffineMaps(self.layout, mean_LND.float(), weights)


class AffineMaps(nn.Module):
    """Predict every layer from layer 0 by an affine map of tokens.

    Parameters
    ----------
    layout
        Token layout.
    mean_LND
        Means over training images of the layers 0..L.
    weights
        By token type, the matrices of the layers 1..L, ``(L, D, D)``; types without one are predicted by the mean.
    """

    mean_LND: Tensor

    def __init__(self, layout: TokenLayout, mean_LND: Tensor, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layout, self.kinds = layout, tuple(weights)
        self.register_buffer("mean_LND", mean_LND)
        for kind, matrices in weights.items():
            self.register_buffer(f"weights_{kind}", matrices)

    def forward(self, first_BND: Tensor) -> list[Tensor]:
        """Predict the layers 1..L from layer 0, in float32."""
        with torch.autocast(first_BND.device.type, enabled=False):
            offset_BND = first_BND.float() - self.mean_LND[0]
            layers = [mean.expand_as(offset_BND).clone() for mean in self.mean_LND[1:]]
            for kind in self.kinds:
                tokens, matrices = self.layout.slice(kind), getattr(self, f"weights_{kind}")
                for layer, matrix in zip(layers, matrices, strict=True):
                    layer[:, tokens] += offset_BND[:, tokens] @ matrix
        return layers

    def save(self, path: Path) -> None:
        """Write the maps to a file."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, lambda tmp_path: save_file(tensors, tmp_path))

    @classmethod
    def load(cls, path: Path, layout: TokenLayout) -> AffineMaps:
        """Read maps that :meth:`save` wrote."""
        tensors = load_file(path)
        weights = {kind: tensors[f"weights_{kind}"] for kind in layout.types if f"weights_{kind}" in tensors}
        return cls(layout, tensors["mean_LND"], weights)


def cache_file(settings: FloorSettings, data: ImageData, *key: str) -> Path | None:
    """Return the file of the affine maps of a teacher on training images, None where none is kept.

    Parameters
    ----------
    settings
        Images and folder.
    data
        Prepared data; its first batch of training images enters the name.
    *key
        Fingerprint of the teacher and whatever else decides the maps.
    """
    if settings.cache is None:
        return None
    digest = hashlib.sha256()
    images, _ = next(iter(data.train_images_dataloader(min(settings.images, data.eval_batch_size))))
    for part in (*key, str(settings.images), str(len(data.train_images)), str(RIDGE), str(tuple(images.shape))):
        digest.update(part.encode())
    digest.update(images.contiguous().numpy().tobytes())
    return settings.cache / f"affine-{digest.hexdigest()[:24]}.safetensors"


class FloorScores(nn.Module):
    """Score the floors of a teacher on the images that students are evaluated on.

    ``mean`` is the mean over these very images at each token and channel, the best constant; ``layer_0`` holds layer 0,
    ``phase_start`` holds the teacher's layer at the start of each phase, ``affine`` is :class:`AffineMaps`.

    Parameters
    ----------
    layout
        Token layout.
    num_layers
        Layers L of the teacher.
    width
        Channels D.
    affine
        The fitted maps.
    starts
        For each student, the layer that its phase of each of its layers starts from; None where it has no phases.
    """

    def __init__(
        self,
        layout: TokenLayout,
        num_layers: int,
        width: int,
        affine: AffineMaps,
        starts: Mapping[str, Sequence[tuple[int, int]] | None],
    ) -> None:
        super().__init__()
        self.affine, self.starts = affine, starts
        self.pairs = sorted({pair for pairs in starts.values() for pair in pairs or ()})
        self.fidelity = nn.ModuleDict(
            {name: Fidelity(layout, num_layers, width) for name in ("layer_0", "affine")}
            | ({"phase_start": Fidelity(layout, len(self.pairs), width)} if self.pairs else {})
        )

    def update(self, acts: Mapping[int, Tensor]) -> None:
        """Add a batch: the teacher's layers 0..L, each ``(B, N, D)``."""
        targets = [acts[layer] for layer in range(1, len(acts))]
        for name, preds in (("layer_0", [acts[0]] * len(targets)), ("affine", self.affine(acts[0]))):
            self.fidelity[name].update(preds, targets, acts[0])  # type: ignore[operator]
        if self.pairs:
            held, later = ([acts[pair[i]] for pair in self.pairs] for i in (0, 1))
            self.fidelity["phase_start"].update(held, later)  # type: ignore[operator]

    def compute(self) -> tuple[dict[str, dict[str, Curves]], dict[str, dict[str, float]]]:
        """Compute the scores of all floors.

        Returns
        -------
        tuple
            Curves over the layers of each student, student -> floor -> curves; and R2 over all layers as the published
            code computes it, floor -> name -> value.
        """
        compared = {name: metric.compute() for name, metric in self.fidelity.items()}  # type: ignore[operator]
        scores = {"mean": compared["layer_0"].constant, **{name: of.predictions for name, of in compared.items()}}
        names = ("mean", "layer_0", "affine")
        whole = {name: scores[name].curves for name in names}
        floors: dict[str, dict[str, Curves]] = {}
        for student, pairs in self.starts.items():
            floors[student] = whole
            if pairs is not None:
                rows = [self.pairs.index(pair) for pair in pairs]
                layers = [later - 1 for _, later in pairs]
                floors[student] = {name: _rows(curves, layers) for name, curves in whole.items()}
                floors[student]["phase_start"] = _rows(scores["phase_start"].curves, rows)
        return floors, {name: scores[name].official for name in names}


def _rows(curves: Curves, rows: Sequence[int]) -> Curves:
    return {m: {kind: [values[i] for i in rows] for kind, values in by.items()} for m, by in curves.items()}


def above_floor(curves: Curves, floors: Mapping[str, Curves]) -> dict[str, float]:
    """Compute by how much a student's mean R2 centred over layers exceeds that of the best floor, by token type."""
    return {
        kind: fmean(values) - max(fmean(floor[HEADLINE][kind]) for floor in floors.values())
        for kind, values in curves[HEADLINE].items()
    }
