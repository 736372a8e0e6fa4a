"""Perturbations of a network's layers, followed to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.analysis.basins import ClassDirections
from raptor.analysis.perturbation import constant_offset, follow, perturb, random_direction
from raptor.models.backbone import Backbone
from raptor.studies.dynamics.options import MeasureOptions
from raptor.utils.seeding import derive_seed

Arrays = dict[str, NDArray[Any]]
EQUAL = 1e-9  # length of a difference of unit vectors that is rounding


class Perturbations:
    """Perturb layers in a random direction and toward another class, and follow the angle to the clean trajectory.

    Parameters
    ----------
    model
        The network.
    classes
        Class directions, or None where there are no classes.
    options
        What to measure.
    """

    def __init__(self, model: Backbone, classes: ClassDirections | None, options: MeasureOptions) -> None:
        self.model, self.classes, self.options = model, classes, options
        L = model.num_layers
        layers = options.perturbation.layers
        self.layers = layers if layers is not None else sorted({0, L // 4, L // 2, 3 * L // 4})
        self._means = classes.compute() if classes is not None else {}
        self._parts: dict[str, list[Tensor]] = {}

    def update(self, positions: Sequence[int], layers: Sequence[Tensor], labels: Tensor | None) -> None:
        """Add a batch: positions, layers 0..L, and labels or None."""
        layout = self.model.layout
        for start in self.layers:
            x = layers[start]
            towards = {"random": self._random(positions, start, x)}
            if labels is not None and self.classes is not None and int(self.classes.seen.sum()) > 1:
                towards["class"] = self._other_class(positions, labels, self._means, start, x)
            for way, direction in towards.items():
                for size in self.options.perturbation.sizes:
                    perturbed = perturb(x, direction, size)
                    followed = {
                        "perturbed": self.model.steps,
                        "constant_offset": constant_offset(layers, perturbed - x),
                    }
                    for name, steps in followed.items():
                        for kind, angles in follow(steps, layers, start, perturbed, layout).items():
                            self._parts.setdefault(f"{name}/{way}/{start}/{size}/{kind}", []).append(angles)

    def arrays(self) -> Arrays:
        """Give angles by ``<perturbed|constant_offset>/<random|class>/<layer>/<size>/<type>``, images x layers."""
        return {key: torch.cat(parts).numpy() for key, parts in self._parts.items()}

    def _random(self, positions: Sequence[int], start: int, x: Tensor) -> Tensor:
        # "kick" is part of the seed, so that the directions are those of earlier releases
        seeds = [derive_seed(self.options.seed, "kick", i, start) for i in positions]
        return torch.stack([random_direction(x.shape[1:], seed) for seed in seeds]).to(x.device)

    def _other_class(
        self, positions: Sequence[int], labels: Tensor, means: Mapping[str, Tensor], start: int, x: Tensor
    ) -> Tensor:
        """From the direction of an image's own class to that of another at that layer, by token type: ``(B, N, D)``.

        Zero where the two are equal, as for the class token at layer 0, or where its own class has no direction.
        """
        assert self.classes is not None
        seen = self.classes.seen.nonzero()[:, 0].tolist()
        targets = []
        for i, label in zip(positions, labels.tolist(), strict=True):
            others = [c for c in seen if c != label]
            targets.append(others[derive_seed(self.options.seed, "class", i) % len(others)])
        towards = torch.zeros_like(x, dtype=torch.float64)
        for kind in self.model.layout.types:
            own_mean = means[kind][labels, start]
            gap = means[kind][torch.tensor(targets), start] - own_mean
            nowhere = (gap.norm(dim=-1) < EQUAL) | (own_mean.norm(dim=-1) < EQUAL)
            towards[:, self.model.layout.slice(kind)] = gap.masked_fill(nowhere[:, None], 0.0)[:, None].to(x.device)
        return towards
