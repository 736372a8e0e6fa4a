"""Test phases against null distributions: could a network without phases give a partition as good.

Phases are found by a search, so even a matrix without phases has a best partition. Each null therefore draws matrices,
lets the same solver search each of them, and compares contrast and share cut of what it finds.

Toeplitz null
    Depth is homogeneous: the expected distance of two layers is a function of how many steps lie between them. A draw
    is the matrix of squared distances along a path with stationary Gaussian increments,
    ``D*_ij = |y_i - y_j|^2 / n`` for ``L`` points ``y_i`` in ``n`` independent directions, such that
    ``E[D*_ij]`` is the mean of the observed diagonal ``|i - j|``. The number ``n`` of directions says how much a single
    path deviates from its expectation; it is fitted so that draws deviate from their own diagonal means as much as
    the observed matrix does. An exact Toeplitz matrix leaves nothing to draw: n is infinite, and p is 1.

    It assumes that the distance is a squared Euclidean one (one minus cosine, mean squared difference and one minus CKA
    are, up to rounding), and that increments are Gaussian and of one law at every depth. Neighbouring entries of a
    distance matrix depend on each other, since they share layers. Permuting the residuals along diagonals ignores
    that, and calls 20 to 45 % of such paths significant at the level of 5 %; drawing whole paths does not.

Permuted-layer null
    The order of the layers carries nothing: rows and columns are permuted together. Any smooth path through depth is
    far from it, with phases or without, so that a small p says little.

p is ``(1 + number of draws at least as large) / (1 + draws)``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from raptor.partition.maxcut import Matrix, solve
from raptor.partition.quality import quality

STATISTICS = ("contrast", "share")
LEVEL = 0.05
TOLERANCE = 1e-9  # of two values of a statistic that count as equal, and of a matrix that counts as Toeplitz
FITTING_DRAWS = 60
DIRECTIONS = tuple(dict.fromkeys(round(1.25**i) for i in range(44)))  # 1 to 14,700, tried by the fit


def toeplitz(distance: Matrix) -> Matrix:
    """Replace every entry by the mean of its diagonal.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    """
    L = len(distance)
    steps = np.abs(np.subtract.outer(np.arange(L), np.arange(L))).ravel()
    means = np.bincount(steps, distance.ravel()) / np.bincount(steps)
    return means[steps].reshape(L, L)


def roughness(distance: Matrix) -> float:
    """Squared deviation from the Toeplitz mean, relative to the squares of that mean."""
    mean = toeplitz(distance)
    return float(((distance - mean) ** 2).sum() / max((mean**2).sum(), np.finfo(float).tiny))


class StationaryPath:
    """Random paths through depth whose expected squared distances are a Toeplitz matrix.

    Parameters
    ----------
    expected
        Toeplitz matrix of the expected squared distances, ``(L, L)``. What no Euclidean points can have is left out
        (negative eigenvalues of the doubly centred matrix count as 0).
    """

    def __init__(self, expected: Matrix) -> None:
        L = len(expected)
        centring = np.eye(L) - 1 / L
        values, vectors = np.linalg.eigh(-0.5 * centring @ expected @ centring)
        self._root = vectors * np.sqrt(np.maximum(values, 0))

    def draw(self, directions: int, rng: np.random.Generator) -> Matrix:
        """Draw the distance matrix ``(L, L)`` of one path in so many independent directions."""
        L = len(self._root)
        if directions < L:
            noise = rng.normal(size=(L, directions))
        else:  # Bartlett's decomposition: the Gram matrix of many directions from L of them
            noise = np.tril(rng.normal(size=(L, L)), -1)
            noise[np.diag_indices(L)] = np.sqrt(rng.chisquare(directions - np.arange(L)))
        points = self._root @ noise / np.sqrt(directions)
        gram = points @ points.T
        squares = np.diag(gram)
        return np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)

    def fit_directions(self, target: float, rng: np.random.Generator) -> int:
        """Find the largest number of directions whose draws are, in the median, at least as rough as ``target``."""

        def median(directions: int) -> float:
            return float(np.median([roughness(self.draw(directions, rng)) for _ in range(FITTING_DRAWS)]))

        smooth = bisect_left(DIRECTIONS, x=True, key=lambda directions: median(directions) < target)
        if smooth < len(DIRECTIONS):
            return DIRECTIONS[max(0, smooth - 1)]
        most = DIRECTIONS[-1]
        return max(most, int(most * median(most) / target))  # roughness falls with the inverse of the number


def toeplitz_draws(distance: Matrix, draws: int, rng: np.random.Generator) -> tuple[list[Matrix], int | None]:
    """Draw matrices from the Toeplitz null.

    Parameters
    ----------
    distance
        Observed, ``(L, L)``.
    draws
        Number of matrices.
    rng
        Source of randomness.

    Returns
    -------
    list of ndarray, int or None
        The matrices, and the fitted number of directions: None where the observed matrix is Toeplitz, and every
        draw is the same.
    """
    expected = toeplitz(distance)
    target = roughness(distance)
    if target < TOLERANCE**2:
        return [expected] * draws, None
    path = StationaryPath(expected)
    directions = path.fit_directions(target, rng)
    return [path.draw(directions, rng) for _ in range(draws)], directions


def permuted_draws(distance: Matrix, draws: int, rng: np.random.Generator) -> list[Matrix]:
    """Draw matrices from the permuted-layer null."""
    orders = (rng.permutation(len(distance)) for _ in range(draws))
    return [distance[np.ix_(order, order)] for order in orders]


def p_value(observed: float, drawn: Sequence[float]) -> float:
    """Share of the draws at least as large as what was observed, which counts as one of them."""
    as_large = np.asarray(drawn) >= observed - TOLERANCE * max(1.0, abs(observed))
    return float((1 + as_large.sum()) / (1 + len(drawn)))


def compare(
    distance: Matrix, boundaries: Sequence[int], matrices: Iterable[Matrix], solver: str
) -> dict[str, dict[str, float]] | None:
    """Compare a partition with what the same solver finds in drawn matrices.

    Parameters
    ----------
    distance
        Observed, ``(L, L)``.
    boundaries
        Partition that the solver found in it.
    matrices
        Draws from a null.
    solver
        Name of the solver.

    Returns
    -------
    dict or None
        For ``contrast`` and ``share``: the ``mean`` over the draws, and ``p``. None where the partition has no
        contrast: one phase, or as many phases as layers.
    """
    observed = quality(distance, boundaries)
    if observed["contrast"] is None:
        return None
    k = len(boundaries) + 1
    drawn_measures = [quality(drawn, solve(drawn, k, solver)) for drawn in matrices]
    values = {name: [float(measures[name] or 0.0) for measures in drawn_measures] for name in STATISTICS}
    return {
        name: {"mean": float(np.mean(values[name])), "p": p_value(float(observed[name] or 0.0), values[name])}
        for name in STATISTICS
    }


def run_null_tests(
    distance: Matrix, boundaries: dict[str, list[int]], solver: str, draws: int = 999, seed: int = 0
) -> dict[str, Any]:
    """Test the partitions of a matrix against both nulls.

    Parameters
    ----------
    distance
        ``(L, L)``.
    boundaries
        Partition for each number of phases.
    solver
        Solver that found them, and that searches the draws.
    draws
        Matrices drawn from each null; the smallest p is ``1 / (1 + draws)``.
    seed
        Seed of the draws.

    Returns
    -------
    dict
        ``draws``; ``directions`` of the Toeplitz null; ``toeplitz`` and ``layers``: :func:`compare` for each number of
        phases; ``significant``: whether p of the contrast against the Toeplitz null is at most 0.05.
    """
    matrices, directions = toeplitz_draws(distance, draws, np.random.default_rng([seed, 0]))
    against = {
        "toeplitz": matrices,
        "layers": permuted_draws(distance, draws, np.random.default_rng([seed, 1])),
    }
    compared = {
        null: {k: compare(distance, edges, drawn, solver) for k, edges in boundaries.items()}
        for null, drawn in against.items()
    }
    return {
        "draws": draws,
        "directions": directions,
        **compared,
        "significant": {
            k: None if result is None else result["contrast"]["p"] <= LEVEL
            for k, result in compared["toeplitz"].items()
        },
    }
