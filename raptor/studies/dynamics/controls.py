"""Check the rules of the findings on networks where the answer is known.

Two synthetic networks of twelve layers move tokens on the unit sphere by known maps, and are measured as any network
is. *Converging* does what the paper describes: tokens approach an attractor of their class along an S-curve, with jumps
at the phase boundaries. *Diverging* does the opposite of each finding. Beside them stand the distances that the paper's
authors published for DINOv2 ViT-B/14 with registers, from which convergence and speed can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import torch
from torch import Tensor

from raptor.analysis.sphere import directions
from raptor.models.backbone import Backbone
from raptor.models.tokens import TokenLayout
from raptor.partition.published import published_distance
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.findings import FINDINGS, evaluate_findings
from raptor.studies.dynamics.measure import Arrays, Dynamics
from raptor.studies.dynamics.options import (
    JacobianOptions,
    MeasureOptions,
    OperatorOptions,
    PerturbationOptions,
)

LAYOUT = TokenLayout(1, 2, 16)
CLASSES, IMAGES, WIDTH = 4, 80, 40
ATTRACTORS = {"cls": slice(0, 4), "patches": slice(4, 8), "registers": slice(8, 12)}  # channels, one for each class
COMMON, UNSTABLE, NOISE = 12, slice(14, 22), slice(22, 40)  # a channel of all tokens; eight that may grow; the rest
BOUNDARIES = [4, 8]
SMALL = MeasureOptions(
    shown=3,
    operators=OperatorOptions(rank=8, tokens=["patches"]),
    perturbation=PerturbationOptions(images=30, sizes=[0.01]),
    jacobian=JacobianOptions(images=0),
)
# degrees from the attractor at the layers 0..12
CONVERGING: dict[str, list[float]] = {
    "cls": [85, 84, 83, 82, 81, 57, 50, 43, 36, 19, 18, 17, 1],
    "patches": [85, 84, 83, 82, 81, 66, 61, 50, 39, 19, 19, 19, 19],
    "registers": [85.0] * 13,
}
DIVERGING: dict[str, list[float]] = {
    "cls": [85, 78, 72, 66, 60, 59, 58.5, 58, 57.5, 57, 36, 14, 1],
    "patches": [85, 75, 66, 58, 50, 49, 48.5, 48, 47.5, 47, 46.5, 46, 45.5],
    "registers": [85.0] * 13,
}
# degrees by which channels of noise turn in each step, in a plane of its own for each pair of channels
TURNS: dict[str, dict[str, list[float]]] = {
    "converging": {"patches": [8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0]},
    "diverging": {"patches": [0, 0, 0, 0, 0, 0, 0, 0, 0, 27, 27, 27], "registers": [20] * 12},
}
DRIFT = 1.0  # degrees towards the common channel in each of the last steps of the converging patches
GROWTH = 1.3  # of the unstable channels in each step of the diverging network
APART = 1e-4  # difference of classes in the unstable channels


@dataclass
class ControlNetwork:
    """A network without weights: what :class:`Dynamics` needs of a backbone.

    Parameters
    ----------
    converging
        Whether it does what the paper describes, or the opposite.
    """

    converging: bool
    layout: TokenLayout = LAYOUT
    num_layers: int = 12
    num_classes: int = 0

    def embed(self, images: Tensor) -> Tensor:
        """Return the images, which are tokens already."""
        return images

    def steps(self, x: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Compute the layers start+1..end."""
        for layer in range(start, self.num_layers if end is None else end):
            x = self._step(x, layer)
            yield x

    def _step(self, x: Tensor, layer: int) -> Tensor:
        degrees = CONVERGING if self.converging else DIVERGING
        turns = TURNS["converging" if self.converging else "diverging"]
        x = x.clone()
        for kind in self.layout.types:
            u = x[:, self.layout.slice(kind)]
            unstable = u[..., UNSTABLE]
            before, after = degrees[kind][layer : layer + 2]
            u = _approach(u, ATTRACTORS[kind], after / before)
            u = _turn(u, turns.get(kind, [0] * 12)[layer])
            if self.converging and kind == "patches" and layer >= 9:
                u = _rotate(u, ATTRACTORS[kind].start, COMMON, DRIFT)
            if not self.converging:
                u[..., UNSTABLE] = GROWTH * unstable
            x[:, self.layout.slice(kind)] = directions(u)
        return x


def _approach(u: Tensor, channels: slice, remaining: float) -> Tensor:
    """Move unit vectors towards the nearest attractor, so that this share of the angle to it remains."""
    nearest = u[..., channels].argmax(-1, keepdim=True)
    target = torch.zeros_like(u).scatter_(-1, nearest + channels.start, 1.0)
    angle = (u * target).sum(-1, keepdim=True).clamp(-1, 1).arccos()
    return (torch.sin(remaining * angle) * u + torch.sin((1 - remaining) * angle) * target) / torch.sin(angle)


def _turn(u: Tensor, degrees: float) -> Tensor:
    for first in range(NOISE.start, NOISE.stop, 2) if degrees else ():
        u = _rotate(u, first, first + 1, degrees)
    return u


def _rotate(u: Tensor, first: int, second: int, degrees: float) -> Tensor:
    """Rotate in the plane of two channels."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = u.clone()
    turned[..., first] = c * u[..., first] - s * u[..., second]
    turned[..., second] = s * u[..., first] + c * u[..., second]
    return turned


class ControlImages:
    """Tokens of layer 0 with the class of each image, in place of images.

    Noise repeats from class to class, so that classes differ only in the intended direction.

    Parameters
    ----------
    attracted
        Whether each class has an attractor of its own. Otherwise classes differ in unstable channels alone.
    labelled
        Whether labels are the classes; otherwise they are drawn at random.
    """

    num_classes = CLASSES

    def __init__(self, *, attracted: bool, labelled: bool = True) -> None:
        rng = np.random.default_rng(0)
        classes = np.arange(IMAGES) % CLASSES
        noise = rng.normal(size=(IMAGES // CLASSES, LAYOUT.num_tokens, NOISE.stop - NOISE.start))
        apart = directions(torch.from_numpy(rng.normal(size=(CLASSES, UNSTABLE.stop - UNSTABLE.start))))
        start = np.radians(CONVERGING["cls"][0])
        tokens = torch.zeros(IMAGES, LAYOUT.num_tokens, WIDTH, dtype=torch.float64)
        tokens[..., NOISE] = np.sin(start) * directions(torch.from_numpy(noise)).repeat_interleave(CLASSES, 0)
        tokens[..., UNSTABLE] = APART * apart[classes][:, None]
        for kind, channels in ATTRACTORS.items():
            for i, c in enumerate(classes):
                tokens[i, LAYOUT.slice(kind), channels.start + (c if attracted else 0)] = np.cos(start)
        self._tokens = directions(tokens)
        self._labels = torch.from_numpy(classes if labelled else rng.permutation(classes))

    def __len__(self) -> int:
        return IMAGES

    def number(self, count: int) -> int:
        """Count the batches of so many images."""
        return 1

    def batches(self, positions: Sequence[int]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Give all chosen images in one batch."""
        if len(positions):
            at = list(positions)
            yield at, self._tokens[at], self._labels[at]


def _measure(*, converging: bool, labelled: bool = True) -> Arrays:
    images = ControlImages(attracted=converging, labelled=labelled)
    dynamics = Dynamics(cast(Backbone, ControlNetwork(converging)), cast(ImageBatches, images), SMALL)
    return dynamics.measure("control", BOUNDARIES)


def published_arrays() -> Arrays:
    """Read convergence and speed from the published distances, which are means over class token and mean patch."""
    cosine = 1 - published_distance()
    speed = np.arccos(np.diagonal(cosine, 1))
    # the step into layer 1 is not published; the first one stands in, and no rule on jumps counts it
    speed = np.concatenate([speed[:1], speed])
    return {
        "boundaries": np.array([7, 10]),
        "curves/convergence/cls": np.tile(cosine[:, -1], (2, 1)),
        "curves/speed/cls": np.tile(speed, (2, 1)),
    }


@cache
def control_verdicts() -> list[dict[str, str]]:
    """Evaluate every finding on the controls.

    Returns
    -------
    list of dict
        ``finding``, ``tokens``, and the verdicts on the networks: ``converging``, where each must show; ``diverging``,
        where none may (of the basins, on labels drawn at random); and on the ``published`` distances, where it can
        be read from them.
    """
    measured: dict[str, Callable[[], Arrays]] = {
        "converging": lambda: _measure(converging=True),
        "diverging": lambda: _measure(converging=False),
        "shuffled": lambda: _measure(converging=False, labelled=False),
        "published": published_arrays,
    }
    verdicts = {
        name: {(row["finding"], row["tokens"]): row["verdict"] for row in evaluate_findings({name: make()}, given=True)}
        for name, make in measured.items()
    }
    rows = []
    for finding in FINDINGS:
        key = finding.title, finding.tokens
        negative = "shuffled" if "basin" in finding.title else "diverging"
        rows.append(
            {
                "finding": finding.title,
                "tokens": finding.tokens,
                "converging": verdicts["converging"].get(key, "not measured"),
                "diverging": verdicts[negative].get(key, "not measured"),
                "published": verdicts["published"].get(key, ""),
            }
        )
    return rows
