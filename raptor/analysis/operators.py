"""Linear operators along depth: centred dynamic mode decomposition of each phase."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raptor.analysis.moments import StepMoments

SMALLEST = 1e-10  # eigenvalue relative to the largest one: directions below are left out
ROUNDING = 1e-13  # eigenvalue relative to the summed squares of the samples


@dataclass
class AffineMap:
    """A map x -> x + B x + c.

    Attributes
    ----------
    update
        B, ``(D, D)``.
    shift
        c, ``(D,)``.
    """

    update: Tensor
    shift: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Map rows ``(..., D)``."""
        return x + x @ self.update.T + self.shift

    def error(self, moments: StepMoments) -> float:
        """Compute the mean of |x' - (x + B x + c)|^2 over samples, from their moments."""
        n, B, c = moments.count, self.update, self.shift
        total = (moments.after + moments.before - 2 * moments.cross).diagonal().sum()
        total = total - 2 * (B * (moments.cross - moments.before)).sum() + (B @ moments.before * B).sum()
        total = total - 2 * c @ (moments.total_after - moments.total_before - B @ moments.total_before) + n * c @ c
        return max(0.0, float(total) / n)


@dataclass
class Operator:
    """An affine map of one step of depth, x' = x + P V^T (x - m) + b: fitted in a subspace, a shift outside of it.

    Attributes
    ----------
    basis
        Orthonormal V, ``(D, r)``.
    update
        P, ``(D, r)``.
    centre
        m, the mean of x, ``(D,)``.
    shift
        b, the mean of x' - x, ``(D,)``.
    """

    basis: Tensor
    update: Tensor
    centre: Tensor
    shift: Tensor

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of I + V^T P, complex ``(r,)``, the largest modulus first: those of centred projected DMD."""
        r = self.basis.shape[1]
        reduced = torch.eye(r, dtype=self.basis.dtype, device=self.basis.device) + self.basis.T @ self.update
        values = torch.linalg.eigvals(reduced)
        return values[values.abs().argsort(descending=True)]

    def affine(self) -> AffineMap:
        """Return the map as x + B x + c."""
        B = self.update @ self.basis.T
        return AffineMap(B, self.shift - B @ self.centre)


def fit_operator(moments: StepMoments, rank: int) -> Operator:
    """Fit the affine map x -> x' of samples by least squares, in their ``rank`` leading directions.

    Projected dynamic mode decomposition (Schmid 2010) with an intercept (Hirsh et al. 2020, "Centering data improves
    the dynamic mode decomposition"): the update x' - x less its mean is regressed on V^T (x - m), where V holds the
    leading eigenvectors of the covariance of x. A pure translation is explained by the intercept alone.

    Parameters
    ----------
    moments
        Of the samples.
    rank
        Dimensions of the subspace; fewer where the samples span fewer.
    """
    n = moments.count
    centre, shift = moments.total_before / n, (moments.total_after - moments.total_before) / n
    covariance = moments.before - torch.outer(moments.total_before, centre)
    cross = moments.cross - torch.outer(moments.total_after, centre)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    kept = (values > SMALLEST * values[0]) & (values > ROUNDING * moments.before.diagonal().sum())
    values, basis = values[kept], vectors[:, kept]
    return Operator(basis, (cross - covariance) @ basis / values, centre, shift)


def identity_map(like: Tensor) -> AffineMap:
    """Return the map that predicts no change, for vectors like ``(D,)``."""
    return AffineMap(like.new_zeros(len(like), len(like)), torch.zeros_like(like))


def shift_map(shift: Tensor) -> AffineMap:
    """Return the map that adds a constant ``(D,)``."""
    return AffineMap(shift.new_zeros(len(shift), len(shift)), shift)


def mean_error(moments: StepMoments, mean: Tensor) -> float:
    """Compute the mean of |x' - m|^2: what predicting a constant ``(D,)`` leaves."""
    center = moments.total_after / moments.count
    power = float(moments.after.diagonal().sum()) / moments.count
    return max(0.0, power - 2 * float(center @ mean) + float(mean @ mean))
