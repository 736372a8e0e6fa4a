"""Linear operators of the phases: one step, several steps, and the surrogate that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raptor.analysis.moments import Moments, StepMoments
from raptor.analysis.operators import AffineMap, fit_operator, identity_map, mean_error, shift_map
from raptor.analysis.sphere import directions
from raptor.models.backbone import Backbone
from raptor.models.tokens import POOLED
from raptor.partition.phases import Phase, phases_of
from raptor.studies.dynamics.options import OperatorOptions

Arrays = dict[str, NDArray[Any]]


class PhaseOperators:
    """Operators of one network, fitted on the first half of the images and evaluated on the second.

    One step needs the sums of a first pass over the images. Several steps and the surrogate need the phases, and so a
    second pass: :meth:`update`.

    Parameters
    ----------
    model
        The network.
    fitted, evaluated
        Moments of directions over all steps, from the first and from the second half.
    boundaries
        Boundaries of the phases.
    options
        Rank, token types and horizon.
    classifies
        Whether the head of the network gives classes, whose agreement can be counted.
    """

    def __init__(
        self,
        model: Backbone,
        fitted: Moments,
        evaluated: Moments,
        boundaries: Sequence[int],
        options: OperatorOptions,
        *,
        classifies: bool = False,
    ) -> None:
        self.model, self.options, self.layout = model, options, model.layout
        self.phases = phases_of(boundaries, model.num_layers)
        self.pairs = {phase: (phase.start, phase.start + self._horizon(phase)) for phase in self.phases}
        self.halves = (fitted, evaluated)
        self.pair_halves = tuple(Moments(self.layout, options.tokens, list(self.pairs.values())) for _ in range(2))
        seen = {kind for kind in POOLED if kind in self.layout.types}
        self.classifies = classifies and seen <= set(options.tokens)
        self.maps: dict[tuple[Phase, str], AffineMap] = {}
        self._end_norms: dict[str, list[Tensor]] = {}
        self._power_errors: dict[tuple[Phase, str], list[Tensor]] = {}
        self._parts: dict[str, list[Tensor]] = {}

    def _horizon(self, phase: Phase) -> int:
        size = phase.end - phase.start
        return size if self.options.horizon is None else min(size, self.options.horizon)

    def one_step(self) -> Arrays:
        """Fit the operator of each phase and token type: spectrum and errors on the second half."""
        arrays: Arrays = {}
        for kind in self.options.tokens:
            for phase in self.phases:
                fit, other = (moments.steps(kind, *phase) for moments in self.halves)
                operator = fit_operator(fit, self.options.rank)
                self.maps[phase, kind] = operator.affine()
                key = f"operators/{phase}/{kind}"
                arrays[f"{key}/eigenvalues"] = operator.eigenvalues.cpu().numpy()
                maps = {"linear": self.maps[phase, kind], "shift": shift_map(operator.shift)}
                arrays |= _errors(key, maps, fit, other)
        return arrays

    def update(self, positions: Sequence[int], layers: Sequence[Tensor], half: int) -> None:
        """Add a batch of the second pass: positions, layers 0..L, and the number of images that fit."""
        points = [directions(x) for x in layers]
        fit = sum(i < half for i in positions)  # positions grow
        for moments, part in zip(self.pair_halves, (slice(0, fit), slice(fit, None)), strict=True):
            moments.update([u[part] for u in points])
        for kind in self.options.tokens:
            norms = self.layout.select(layers[-1][:fit], kind).double().norm(dim=-1)
            self._end_norms.setdefault(kind, []).append(norms.flatten())
        if fit < len(positions):
            self._apply_powers([u[fit:] for u in points])
            self._roll_out([u[fit:] for u in points], layers[-1][fit:])

    def _apply_powers(self, points: Sequence[Tensor]) -> None:
        """Sum the squared errors of operators applied again and again: by samples, since moments would cancel out."""
        for kind in self.options.tokens:
            at = self.layout.slice(kind)
            for phase, (first, last) in self.pairs.items():
                x = points[first][:, at]
                for _ in range(first, last):
                    x = self.maps[phase, kind].apply(x)
                errors = (x - points[last][:, at]).square().sum(-1).flatten()
                self._power_errors.setdefault((phase, kind), []).append(errors.cpu())

    def _roll_out(self, points: Sequence[Tensor], last: Tensor) -> None:
        """Apply the operators from layer 0 on, and compare with the layers of the network."""
        start = points[0]
        for name in ("linear", "identity"):
            predicted = [start.clone()]
            for phase in self.phases:
                for _ in range(phase.start, phase.end):
                    x = predicted[-1].clone()
                    for kind in self.options.tokens if name == "linear" else ():
                        at = self.layout.slice(kind)
                        x[:, at] = self.maps[phase, kind].apply(x[:, at])
                    predicted.append(x)
            for kind in self.options.tokens:
                at = self.layout.slice(kind)
                cosines = [
                    (directions(p[:, at]) * u[:, at]).sum(-1).mean(1) for p, u in zip(predicted, points, strict=True)
                ]
                self._keep(f"rollout/{name}/{kind}", torch.stack(cosines, dim=1))
            if self.classifies:
                self._keep(f"agreement/{name}", self._agrees(predicted[-1], last))
        if self.classifies:
            self._keep("agreement/answers", self.model.head(last).argmax(-1))

    def _agrees(self, predicted: Tensor, last: Tensor) -> Tensor:
        """1 where the head gives the class of the network's own last layer; norms are means of the first half."""
        tokens = predicted.clone()
        for kind, norms in self._end_norms.items():
            tokens[:, self.layout.slice(kind)] *= torch.cat(norms).mean()
        return (self.model.head(tokens.to(last.dtype)).argmax(-1) == self.model.head(last).argmax(-1)).double()

    def _keep(self, key: str, values: Tensor) -> None:
        self._parts.setdefault(key, []).append(values.cpu())

    def arrays(self) -> Arrays:
        """Give errors over several steps, and how well the surrogate of operators follows the network.

        Returns
        -------
        dict
            ``multistep/<phase>/<type>/...``: ``horizon`` p, and errors at layer start + p of ``power`` (the operator
            applied p times), ``endpoint`` (an affine map fitted to that very pair of layers), ``identity`` and
            ``mean``;
            ``rollout/<linear|identity>/<type>``, cosine to the network's layers ``(n, L+1)``;
            ``agreement/<linear|identity>``, 1 where the head gives the same class ``(n,)``, and ``agreement/chance``.
        """
        found: Arrays = {key: torch.cat(parts).numpy() for key, parts in self._parts.items()}
        if (answers := found.pop("agreement/answers", None)) is not None:
            found["agreement/chance"] = np.array(np.bincount(answers).max() / len(answers))
        for kind in self.options.tokens:
            for phase, (first, last) in self.pairs.items():
                fit, other = (moments.pair(kind, first, last) for moments in self.pair_halves)
                maps = {"endpoint": fit_operator(fit, self.options.rank).affine()}
                key = f"multistep/{phase}/{kind}"
                power = torch.cat(self._power_errors[phase, kind]).mean()
                found |= {f"{key}/horizon": np.array(last - first), f"{key}/power_error": np.array(float(power))}
                found |= _errors(key, maps, fit, other)
        return found


def _errors(key: str, maps: dict[str, AffineMap], fit: StepMoments, other: StepMoments) -> Arrays:
    """Errors on other samples of some maps, of no change, and of the mean of the fitted samples."""
    errors = {name: found.error(other) for name, found in maps.items()}
    errors["identity"] = identity_map(other.total_before).error(other)
    errors["mean"] = mean_error(other, fit.total_after / fit.count)
    return {f"{key}/{name}_error": np.array(error) for name, error in errors.items()}
