"""Measure the dynamics of one network: two passes over images, then perturbations and Jacobians on a few."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.analysis.basins import ClassDirections, evaluate_basins, pooled_directions
from raptor.analysis.hypothesis import hold_phase_start, recurrence_error
from raptor.analysis.jacobian import jacobian_spectrum
from raptor.analysis.layer_distance import LayerDistance
from raptor.analysis.moments import Moments, OtherEnd
from raptor.analysis.rank import effective_rank, stable_rank
from raptor.analysis.sphere import directions
from raptor.analysis.trajectories import image_curves
from raptor.models.backbone import Backbone
from raptor.models.surrogate import Surrogate
from raptor.partition.maxcut import solve
from raptor.partition.phases import phases_of
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.operators import PhaseOperators
from raptor.studies.dynamics.options import MeasureOptions
from raptor.studies.dynamics.perturbations import Perturbations
from raptor.utils.terminal import track

Arrays = dict[str, NDArray[Any]]
log = logging.getLogger(__name__)
LAYERS_SHARE = 0.5  # of the time, roughly; the second pass, perturbations and Jacobians take the rest


def layers_of(model: Backbone, images: Tensor) -> list[Tensor]:
    """Compute layers 0..L of normalised images, each ``(B, N, D)``."""
    x = model.embed(images)
    return [x, *model.steps(x)]


class Pass:
    """Everything that the first pass over the images sums up or keeps.

    The first half of the images gives class directions and linear operators, the second half evaluates them.

    Parameters
    ----------
    model
        The network.
    count
        Number of images.
    num_classes
        Number of classes, 0 where there are none.
    options
        What to measure.
    """

    def __init__(self, model: Backbone, count: int, num_classes: int, options: MeasureOptions) -> None:
        self.layout, self.options, self.half = model.layout, options, count // 2
        self.distance = LayerDistance(self.layout, options.tokens)
        self.other_end = OtherEnd(self.layout)
        self.fitted, self.evaluated = (Moments(self.layout, options.operators.tokens) for _ in range(2))
        self.classes = ClassDirections(num_classes) if num_classes else None
        self._parts: dict[str, list[Tensor]] = {}

    def keep(self, key: str, values: Tensor) -> None:
        """Keep the values of a batch, one row for each image."""
        self._parts.setdefault(key, []).append(values.cpu())

    def update(self, positions: Sequence[int], layers: Sequence[Tensor], labels: Tensor | None) -> None:
        """Add a batch: positions, layers 0..L, and labels or None."""
        self.distance.update(layers[1:])
        for measure, by_kind in image_curves(layers, self.layout, ranks=self.options.ranks).items():
            for kind, values in by_kind.items():
                self.keep(f"curves/{measure}/{kind}", values)
        points = [directions(x) for x in layers]
        self.other_end.update(points)
        fit = sum(i < self.half for i in positions)  # positions grow
        self.fitted.update([u[:fit] for u in points])
        self.evaluated.update([u[fit:] for u in points])
        pooled = pooled_directions(layers, self.layout)
        shown = sum(i < self.options.shown for i in positions)
        for kind, u in pooled.items():
            self.keep(f"shown/{kind}", u[:shown].float())
        if labels is None or self.classes is None:
            return
        self.keep("labels", labels)
        self.classes.update({kind: u[:fit] for kind, u in pooled.items()}, labels[:fit])
        if fit < len(labels):
            means = self.classes.compute()
            known = self.classes.seen[labels[fit:]]
            self.keep("evaluated_labels", labels[fit:][known])
            for kind, u in pooled.items():
                for name, values in evaluate_basins(u[fit:], means[kind], labels[fit:], self.classes.seen).items():
                    self.keep(f"basins/{name}/{kind}", values[known])

    def arrays(self) -> Arrays:
        """All values, by name."""
        found = {key: torch.cat(parts).numpy() for key, parts in self._parts.items()}
        found |= {f"other_end/{kind}": curve.numpy() for kind, curve in self.other_end.compute().items()}
        found["distance"] = self.distance.compute()
        if self.classes is not None and "evaluated_labels" in found:
            chance = self.classes.chance(torch.from_numpy(found.pop("evaluated_labels")))
            found |= {"basins/chance": np.array(chance), "basins/classes": np.array(int(self.classes.seen.sum()))}
        for kind in self.options.operators.tokens:
            steps = range(len(found["distance"]))
            powers = [(self.fitted.step(kind, s) + self.evaluated.step(kind, s)).update_powers for s in steps]
            for name, rank in (("stable_rank", stable_rank), ("effective_rank", effective_rank)):
                found[f"pooled/{name}/{kind}"] = np.array([float(rank(p)) for p in powers])
        return found


class Dynamics:
    """All measures of one network.

    Parameters
    ----------
    model
        Teacher, surrogate or untrained network; in eval mode, on the device of the images.
    images
        What to measure on.
    options
        What to measure.
    on_progress
        Called now and then with the share of the work that is done, 0..1.
    """

    def __init__(
        self,
        model: Backbone,
        images: ImageBatches,
        options: MeasureOptions,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.model, self.images, self.options, self.on_progress = model, images, options, on_progress
        self.sums = Pass(model, len(images), images.num_classes, options)

    @torch.no_grad()
    def measure(self, name: str, boundaries: Sequence[int] | None, teacher: Backbone | None = None) -> Arrays:
        """Measure everything.

        Parameters
        ----------
        name
            For the progress display.
        boundaries
            Phases; None cuts the distance between this network's own layers into ``k``.
        teacher
            Of a surrogate: its error is measured too.

        Returns
        -------
        dict
            Arrays by name (docs/dynamics.md lists them).
        """
        begin, count = time.monotonic(), len(self.images)
        passes = self.images.batches(range(count))
        for positions, images, labels in track(passes, f"{name}: layers", self.images.number(count)):
            layers = layers_of(self.model, images)
            self.sums.update(positions, layers, labels)
            if teacher is not None:
                self._compare(layers_of(teacher, images), layers)
            self.on_progress(LAYERS_SHARE * (positions[-1] + 1) / count)
        found = self.sums.arrays()
        if boundaries is None:
            boundaries = solve(found["distance"], self.options.k)
        if isinstance(self.model, Surrogate):  # its tied blocks
            boundaries = self.model.boundaries
        found["boundaries"] = np.array(boundaries, dtype=np.int64)
        done = [begin, time.monotonic()]
        for measures in (self._operators, self._perturbations, self._jacobians):
            found |= measures(name, boundaries)
            done.append(time.monotonic())
        self.on_progress(1.0)
        seconds = [later - earlier for earlier, later in pairwise(done)]
        log.info("%s: layers %.0f s, operators %.0f s, perturbations %.0f s, Jacobians %.0f s", name, *seconds)
        return found

    def _compare(self, theirs: Sequence[Tensor], ours: Sequence[Tensor]) -> None:
        cuts = self.model.boundaries if isinstance(self.model, Surrogate) else []
        for stand_in, layers in (("surrogate", ours), ("hold_phase_start", hold_phase_start(theirs, cuts))):
            for measure, values in recurrence_error(theirs, layers, self.model.layout).items():
                self.sums.keep(f"hypothesis/{stand_in}/{measure}", values)

    def _operators(self, name: str, boundaries: Sequence[int]) -> Arrays:
        """Operators of the phases: a second pass, now that the phases are known."""
        options = self.options.operators
        operators = PhaseOperators(
            self.model,
            self.sums.fitted,
            self.sums.evaluated,
            boundaries,
            options,
            classifies=0 < self.images.num_classes == self.model.num_classes,
        )
        found = operators.one_step()
        if not options.tokens:
            return found
        count = len(self.images)
        passes = self.images.batches(range(count))
        for positions, images, _ in track(passes, f"{name}: operators", self.images.number(count)):
            operators.update(positions, layers_of(self.model, images), self.sums.half)
        return found | operators.arrays()

    def _perturbations(self, name: str, boundaries: Sequence[int]) -> Arrays:
        """Angles after perturbations, on images of the second half."""
        chosen = range(self.sums.half, min(len(self.images), self.sums.half + self.options.perturbation.images))
        perturbations = Perturbations(self.model, self.sums.classes, self.options)
        passes = self.images.batches(chosen)
        number = self.images.number(len(chosen))
        for positions, images, labels in track(passes, f"{name}: perturbations", number):
            perturbations.update(positions, layers_of(self.model, images), labels)
        return perturbations.arrays()

    def _jacobians(self, name: str, boundaries: Sequence[int]) -> Arrays:
        """Spectra at the last step of each phase, on images of the second half."""
        options = self.options.jacobian
        chosen = range(self.sums.half, min(len(self.images), self.sums.half + options.images))
        states = [
            (phase, x[i : i + 1])
            for _, images, _ in self.images.batches(chosen)
            for layers in [layers_of(self.model, images)]
            for phase in phases_of(boundaries, self.model.num_layers)
            for x in [layers[phase.end - 1]]
            for i in range(len(images))
        ]
        found: dict[str, list[NDArray[Any]]] = {}
        for phase, state in track(states, f"{name}: Jacobians"):
            last = phase.end

            def step(x: Tensor, last: int = last) -> Tensor:
                return next(iter(self.model.steps(x, last - 1, last)))

            for key, values in jacobian_spectrum(step, state, options.values, self.options.seed).items():
                found.setdefault(f"jacobian/{last}/{key}", []).append(values)
        return {key: np.stack(parts) for key, parts in found.items()}
