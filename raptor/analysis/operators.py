"""Linear operators along depth: dynamic mode decomposition of each phase."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raptor.analysis.moments import StepMoments


@dataclass
class Operator:
    """A linear map of one step of depth, A = I + P V^T: fitted in a subspace, the identity outside of it.

    Attributes
    ----------
    basis
        Orthonormal V, ``(D, r)``.
    update
        P, ``(D, r)``.
    """

    basis: Tensor
    update: Tensor

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of V^T A V, complex ``(r,)``, the largest modulus first: those of projected DMD."""
        r = self.basis.shape[1]
        reduced = torch.eye(r, dtype=self.basis.dtype, device=self.basis.device) + self.basis.T @ self.update
        values = torch.linalg.eigvals(reduced)
        return values[values.abs().argsort(descending=True)]

    def apply(self, x: Tensor) -> Tensor:
        """A x for rows ``(n, D)``."""
        return x + (x @ self.basis) @ self.update.T

    def error(self, moments: StepMoments) -> float:
        """Mean of |x' - A x|^2 over samples, from their moments."""
        return _mean_error(moments, self.update @ self.basis.T)


def fit_operator(moments: StepMoments, rank: int) -> Operator:
    """Least-squares linear map x -> x' of samples, in their ``rank`` leading directions (Schmid 2010; projected DMD).

    The update x' - x is regressed on V^T x, where V holds the leading eigenvectors of the sum of x x^T. Within the
    subspace that is dynamic mode decomposition: V^T A V = V^T C V Lambda^-1 with C the sum of x' x^T.

    Parameters
    ----------
    moments
        Of the samples.
    rank
        Dimensions of the subspace; fewer where the samples span fewer.
    """
    values, vectors = torch.linalg.eigh((moments.before + moments.before.T) / 2)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    kept = values > 1e-10 * values[0]
    values, basis = values[kept], vectors[:, kept]
    return Operator(basis, (moments.cross - moments.before) @ basis / values)


def identity_error(moments: StepMoments) -> float:
    """Mean of |x' - x|^2: what predicting no change leaves."""
    return _mean_error(moments, None)


def mean_error(moments: StepMoments, mean: Tensor) -> float:
    """Mean of |x' - m|^2: what predicting a constant ``(D,)`` leaves."""
    own = moments.total_after / moments.count
    power = float(moments.after.diagonal().sum()) / moments.count
    return max(0.0, power - 2 * float(own @ mean) + float(mean @ mean))


def _mean_error(moments: StepMoments, B: Tensor | None) -> float:
    total = (moments.after + moments.before - 2 * moments.cross).diagonal().sum()
    if B is not None:
        total = total - 2 * (B * (moments.cross - moments.before)).sum() + (B @ moments.before * B).sum()
    return max(0.0, float(total) / moments.count)
