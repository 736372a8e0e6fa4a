"""Measuring the dynamics of one network: a single pass over images, then kicks and Jacobians on a few of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from raptor.analysis.basins import ClassDirections, judge, pooled_directions
from raptor.analysis.hypothesis import held, recurrence_error
from raptor.analysis.jacobian import jacobian_spectrum
from raptor.analysis.layer_distance import LayerDistance
from raptor.analysis.moments import Moments, OtherEnd
from raptor.analysis.operators import fit_operator, identity_error, mean_error
from raptor.analysis.perturbation import carried, follow, kick, random_direction
from raptor.analysis.rank import effective_rank, stable_rank
from raptor.analysis.sphere import directions
from raptor.analysis.trajectories import image_curves
from raptor.models.backbone import Backbone
from raptor.models.surrogate import Surrogate
from raptor.partition.maxcut import solve
from raptor.partition.phases import phases_of
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.options import MeasureOptions
from raptor.utils.seeding import derive_seed

Arrays = dict[str, NDArray[Any]]
log = logging.getLogger(__name__)
EQUAL = 1e-9
LAYERS_SHARE = 0.7  # of the time, roughly; kicks and Jacobians take the rest


def layers_of(model: Backbone, images: Tensor) -> list[Tensor]:
    """Layers 0..L of normalised images, each ``(B, N, D)``."""
    x = model.embed(images)
    return [x, *model.steps(x)]


class Pass:
    """Everything that one pass over the images sums up or keeps.

    The first half of the images gives class directions and linear operators, the second half judges them.

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
        self.fitted, self.judged = (Moments(self.layout, options.operators.tokens) for _ in range(2))
        self.classes = ClassDirections(num_classes) if num_classes else None
        self._parts: dict[str, list[Tensor]] = {}

    def keep(self, key: str, values: Tensor) -> None:
        """Keep the values of a batch, one row for each image."""
        self._parts.setdefault(key, []).append(values.cpu())

    def update(self, positions: Sequence[int], layers: Sequence[Tensor], labels: Tensor | None) -> None:
        """Add a batch: positions, layers 0..L, and labels or None."""
        self.distance.update(torch.stack(list(layers[1:]), dim=1))
        for measure, by_kind in image_curves(layers, self.layout, self.options.ranks).items():
            for kind, values in by_kind.items():
                self.keep(f"curves/{measure}/{kind}", values)
        points = [directions(x) for x in layers]
        self.other_end.update(points)
        fit = sum(i < self.half for i in positions)  # positions grow
        self.fitted.update([u[:fit] for u in points])
        self.judged.update([u[fit:] for u in points])
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
            self.keep("judged_labels", labels[fit:][known])
            for kind, u in pooled.items():
                for name, values in judge(u[fit:], means[kind], labels[fit:], self.classes.seen).items():
                    self.keep(f"basins/{name}/{kind}", values[known])

    def arrays(self) -> Arrays:
        """All values, by name."""
        found = {key: torch.cat(parts).numpy() for key, parts in self._parts.items()}
        found |= {f"other_end/{kind}": curve.numpy() for kind, curve in self.other_end.compute().items()}
        found["distance"] = self.distance.compute()
        if self.classes is not None and "judged_labels" in found:
            chance = self.classes.chance(torch.from_numpy(found.pop("judged_labels")))
            found |= {"basins/chance": np.array(chance), "basins/classes": np.array(int(self.classes.seen.sum()))}
        for kind in self.options.operators.tokens:
            steps = range(len(self.fitted.cross[kind]))
            powers = [(self.fitted.step(kind, s) + self.judged.step(kind, s)).update_powers for s in steps]
            for name, rank in (("stable_rank", stable_rank), ("effective_rank", effective_rank)):
                found[f"pooled/{name}/{kind}"] = np.array([float(rank(p)) for p in powers])
        return found

    def operators(self, boundaries: Sequence[int]) -> Arrays:
        """Spectrum and held-out errors of the linear operator of each phase."""
        found: Arrays = {}
        L = self.distance.compute().shape[0]
        for kind in self.options.operators.tokens:
            for phase in phases_of(boundaries, L):
                fit, held_out = (m.steps(kind, *phase) for m in (self.fitted, self.judged))
                operator = fit_operator(fit, self.options.operators.rank)
                key = f"operators/{phase}/{kind}"
                found[f"{key}/eigenvalues"] = operator.eigenvalues.cpu().numpy()
                constant = mean_error(held_out, fit.total_after / fit.count)
                errors = {"linear": operator.error(held_out), "identity": identity_error(held_out), "mean": constant}
                found |= {f"{key}/{name}_error": np.array(error) for name, error in errors.items()}
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
    said
        Called now and then with the share of the work that is done, 0..1.
    """

    def __init__(
        self,
        model: Backbone,
        images: ImageBatches,
        options: MeasureOptions,
        said: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.model, self.images, self.options, self.said = model, images, options, said
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
        for positions, images, labels in track(passes, f"{name}: layers", self.images.number(count), transient=True):
            layers = layers_of(self.model, images)
            self.sums.update(positions, layers, labels)
            if teacher is not None:
                self._compare(layers_of(teacher, images), layers)
            self.said(LAYERS_SHARE * (positions[-1] + 1) / count)
        found = self.sums.arrays()
        if boundaries is None:
            boundaries = solve(found["distance"], self.options.k)
        if isinstance(self.model, Surrogate):  # its tied blocks
            boundaries = self.model.boundaries
        found["boundaries"] = np.array(boundaries, dtype=np.int64)
        found |= self.sums.operators(boundaries)
        done = [begin, time.monotonic()]
        for measures in (partial(self._kicks, name), partial(self._jacobians, name, boundaries)):
            found |= measures()
            done.append(time.monotonic())
        self.said(1.0)
        seconds = [later - earlier for earlier, later in pairwise(done)]
        log.info("%s: layers %.0f s, kicks %.0f s, Jacobians %.0f s", name, *seconds)
        return found

    def _compare(self, theirs: Sequence[Tensor], ours: Sequence[Tensor]) -> None:
        cuts = self.model.boundaries if isinstance(self.model, Surrogate) else []
        for stand_in, layers in (("surrogate", ours), ("held", held(theirs, cuts))):
            for measure, values in recurrence_error(theirs, layers, self.model.layout).items():
                self.sums.keep(f"hypothesis/{stand_in}/{measure}", values)

    def _kicks(self, name: str) -> Arrays:
        """Angles after kicks in a random direction and toward another class, on images of the second half."""
        options, L, layout = self.options.perturbation, self.model.num_layers, self.model.layout
        chosen = range(self.sums.half, min(len(self.images), self.sums.half + options.images))
        kicked_layers = options.layers if options.layers is not None else sorted({0, L // 4, L // 2, 3 * L // 4})
        means = self.sums.classes.compute() if self.sums.classes is not None else {}
        found: dict[str, list[Tensor]] = {}
        batches = self.images.batches(chosen)
        for positions, images, labels in track(
            batches, f"{name}: kicks", self.images.number(len(chosen)), transient=True
        ):
            layers = layers_of(self.model, images)
            for start in kicked_layers:
                x = layers[start]
                towards = {"random": self._random(positions, start, x)}
                if labels is not None and means and int(self.sums.classes.seen.sum()) > 1:  # type: ignore[union-attr]
                    towards["class"] = self._other_class(positions, labels, means, start, x)
                for way, direction in towards.items():
                    for size in options.sizes:
                        kicked = kick(x, direction, size)
                        for what, steps in (("kicks", self.model.steps), ("carried", carried(layers, kicked - x))):
                            for kind, angles in follow(steps, layers, start, kicked, layout).items():
                                found.setdefault(f"{what}/{way}/{start}/{size}/{kind}", []).append(angles)
        return {key: torch.cat(parts).numpy() for key, parts in found.items()}

    def _random(self, positions: Sequence[int], start: int, x: Tensor) -> Tensor:
        seeds = [derive_seed(self.options.seed, "kick", i, start) for i in positions]
        return torch.stack([random_direction(x.shape[1:], seed) for seed in seeds]).to(x.device)

    def _other_class(
        self, positions: Sequence[int], labels: Tensor, means: dict[str, Tensor], start: int, x: Tensor
    ) -> Tensor:
        """From the direction of an image's own class to that of another at that layer, by token type: ``(B, N, D)``.

        Zero where the two are equal, as for the class token at layer 0, or where its own class has no direction.
        """
        assert self.sums.classes is not None
        seen = self.sums.classes.seen.nonzero()[:, 0].tolist()
        targets = []
        for i, label in zip(positions, labels.tolist(), strict=True):
            others = [c for c in seen if c != label]
            targets.append(others[derive_seed(self.options.seed, "class", i) % len(others)])
        towards = torch.zeros_like(x, dtype=torch.float64)
        for kind in self.model.layout.types:
            own = means[kind][labels, start]
            gap = means[kind][torch.tensor(targets), start] - own
            nowhere = (gap.norm(dim=-1) < EQUAL) | (own.norm(dim=-1) < EQUAL)
            towards[:, self.model.layout.slice(kind)] = gap.masked_fill(nowhere[:, None], 0.0)[:, None].to(x.device)
        return towards

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
        for phase, state in track(states, f"{name}: Jacobians", transient=True):
            last = phase.end

            def step(x: Tensor, last: int = last) -> Tensor:
                return next(iter(self.model.steps(x, last - 1, last)))

            for key, values in jacobian_spectrum(step, state, options.values, self.options.seed).items():
                found.setdefault(f"jacobian/{last}/{key}", []).append(values)
        return {key: np.stack(parts) for key, parts in found.items()}
