"""Max-cut over depth: cut layers 1..L into contiguous phases that are far from each other.

The weight of a partition is the sum of the distances between layers of different phases, each pair once.
Three solvers are kept because they differ:

* :func:`exact` maximises the weight over contiguous partitions (the dynamic programme that the paper describes);
* :func:`normalised` minimises the sum of each phase's inner distances over its size. The weight alone prefers phases of
  equal size, since those have the most pairs across; dividing by the size removes this preference;
* :func:`greedy` bisects recursively, which gives the phases that the paper published.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raptor.errors import ConfigError
from raptor.partition.phases import check_boundaries, check_k, label_layers

Matrix = NDArray[np.float64]
SOLVERS = ("exact", "normalised", "greedy")


def check_distance(distance: NDArray[Any], name: str = "distance") -> Matrix:
    """Check a distance matrix, and return it as float64.

    A matrix that is zero on one side of the diagonal is mirrored.

    Raises
    ------
    ConfigError
        If it is not square, finite, symmetric and zero on the diagonal.
    """
    D = np.asarray(distance)
    if D.ndim != 2 or D.shape[0] != D.shape[1] or D.shape[0] < 1:
        raise ConfigError.of(f"shape of {name}", D.shape, "(L, L) over the layers 1..L", "give a square matrix")
    if not np.issubdtype(D.dtype, np.number) or np.iscomplexobj(D) or not np.isfinite(D).all():
        raise ConfigError.of(f"dtype of {name}", D.dtype, "finite real numbers only", "give a matrix of such")
    D = D.astype(np.float64)
    if not np.tril(D, -1).any() or not np.triu(D, 1).any():
        D = D + D.T - np.diag(np.diag(D))
    tolerance = 1e-5 * max(1.0, float(np.abs(D).max()))
    if np.abs(np.diag(D)).max() > tolerance:
        value = f"{np.diag(D).flat[0]:.3g}"
        expected = "0, the distance of a layer to itself"
        raise ConfigError.of(f"diagonal of {name}", value, expected, "give 1 - S for a similarity matrix S")
    if np.abs(D - D.T).max() > tolerance:
        value = f"{np.abs(D - D.T).max():.3g}"
        expected = "a symmetric matrix, or one side of it and 0 on the other"
        raise ConfigError.of(f"difference of {name} from its transpose", value, expected, "symmetrise it")
    return (D + D.T) / 2


def cut_weight(distance: Matrix, boundaries: Sequence[int]) -> float:
    """Sum of the distances between layers of different phases, each pair once."""
    labels = np.array(label_layers(boundaries, len(distance)))
    return float(distance[labels[:, None] < labels[None, :]].sum())


def _within(distance: Matrix) -> Matrix:
    """``W[a, b]``: sum over the pairs inside layers a+1..b, shape ``(L+1, L+1)``, 0 where b <= a."""
    L = len(distance)
    S = np.zeros((L + 1, L + 1))
    S[1:, 1:] = distance.cumsum(0).cumsum(1)
    d = np.diag(S)
    # the square block a..b of the symmetric matrix, halved: each pair once
    W = (d[None, :] + d[:, None] - S - S.T) / 2
    return np.triu(W, 1)


def exact(distance: Matrix, k: int) -> list[int]:
    """Best contiguous partition into k phases.

    Maximising the cut is minimising the sum within phases, which adds up over phases; the dynamic programme
    over (number of phases, last layer) takes O(k L^2). Among equals the lexicographically first wins.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    k
        Number of phases, 1..L.

    Returns
    -------
    list of int
        The k - 1 boundaries.

    Raises
    ------
    ConfigError
        If k does not fit.
    """
    return _cheapest(_within(distance), k)


def normalised(distance: Matrix, k: int) -> list[int]:
    """Find the contiguous partition with the least sum, over phases, of inner distance divided by size.

    The inner distance of a phase is the sum over its pairs of layers, each pair once; its size is the number of its
    layers. Up to a factor this is the k-means objective with layers as points where the distance is a squared
    Euclidean one (as one minus cosine is). The dynamic programme is that of :func:`exact`.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    k
        Number of phases, 1..L.

    Returns
    -------
    list of int
        The k - 1 boundaries.

    Raises
    ------
    ConfigError
        If k does not fit.
    """
    edges = np.arange(len(distance) + 1)
    return _cheapest(_within(distance) / np.maximum(edges[None, :] - edges[:, None], 1), k)


def _cheapest(cost: Matrix, k: int) -> list[int]:
    """Boundaries of the k phases of least total cost, where ``cost[a, b]`` is that of the phase a+1..b."""
    L = len(cost) - 1
    check_k(k, L, "k")
    # best[j, a]: least cost when layers a+1..L form j phases; built from the far end so that
    # reading forward and taking the first minimum gives the lexicographically first optimum
    best = np.full((k + 1, L + 1), np.inf)
    best[0, L] = 0.0
    cost = np.where(np.tri(L + 1, dtype=bool), np.inf, cost)
    for j in range(1, k + 1):
        best[j] = (cost + best[j - 1][None, :]).min(axis=1)
    boundaries, a = [], 0
    for j in range(k, 1, -1):
        a = int((cost[a] + best[j - 1]).argmin())
        boundaries.append(a)
    return boundaries


def _best_split(distance: Matrix, start: int, end: int) -> tuple[float, int]:
    """Weight and place of the best cut of the layers start+1..end in two."""
    cuts = [float(distance[start:b, b:end].sum()) for b in range(start + 1, end)]
    place = int(np.argmax(cuts))
    return cuts[place], start + 1 + place


def greedy(distance: Matrix, *, k: int | None = None, eps: float | None = None, min_size: int = 4) -> list[int]:
    """Split the cluster with the heaviest cut, again and again: recursive bisection.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal.
    k
        Stop at this number of phases; every cluster of two layers or more may be split.
    eps
        Stop when no cut exceeds ``eps`` times the total weight; clusters under ``min_size`` layers stay whole.
        The paper's values are 0.20, 0.10 and 0.09 for 2, 3 and 4 phases.
    min_size
        Smallest cluster that ``eps`` may split.

    Returns
    -------
    list of int
        Boundaries.

    Raises
    ------
    ConfigError
        Unless exactly one of ``k`` and ``eps`` is given and fits.
    """
    L = len(distance)
    if (k is None) == (eps is None):
        raise ConfigError.of("k, eps", (k, eps), "one of the two ways to stop the bisection", "give one of them")
    if k is not None:
        check_k(k, L, "k")
    elif not (eps is not None and 0 < eps < 1):
        raise ConfigError.of("eps", eps, "a number between 0 and 1", "set it to 0.1, for instance")
    smallest = 2 if eps is None else max(2, min_size)
    threshold = -np.inf if eps is None else eps * float(np.triu(distance, 1).sum())
    edges = [0, L]
    while k is None or len(edges) - 1 < k:
        clusters = [(a, b) for a, b in itertools.pairwise(edges) if b - a >= smallest]
        splits = [_best_split(distance, a, b) for a, b in clusters]
        weight, place = max(splits, key=lambda s: (s[0], -s[1]), default=(-np.inf, -1))
        if weight <= threshold:
            break
        edges = sorted([*edges, place])
    return edges[1:-1]


def solve(distance: Matrix, k: int, solver: str = "exact") -> list[int]:
    """Boundaries of k phases by a named solver.

    Raises
    ------
    ConfigError
        If the solver is unknown or k does not fit.
    """
    if solver not in SOLVERS:
        raise ConfigError.of("solver", solver, " or ".join(SOLVERS), "choose one of them")
    if solver == "greedy":
        return greedy(distance, k=k)
    return exact(distance, k) if solver == "exact" else normalised(distance, k)


def brute_force(distance: Matrix, k: int) -> list[int]:
    """Best contiguous partition by trying all C(L-1, k-1); only for tests and small L."""
    L = len(distance)
    options = map(list, itertools.combinations(range(1, L), check_k(k, L, "k") - 1))
    return max(options, key=lambda boundaries: cut_weight(distance, boundaries))


def random_boundaries(num_layers: int, k: int, rng: np.random.Generator) -> list[int]:
    """Draw a contiguous partition into k phases uniformly: the control of the small-scale study."""
    check_k(k, num_layers, "k")
    drawn = rng.choice(np.arange(1, num_layers), size=k - 1, replace=False)
    return check_boundaries(sorted(int(b) for b in drawn), num_layers)


def equal_boundaries(num_layers: int, k: int) -> list[int]:
    """Cut depth into k phases of sizes that differ by one layer at most: a control that uses no distance."""
    check_k(k, num_layers, "k")
    return [round(j * num_layers / k) for j in range(1, k)]


def other_boundaries(boundaries: Sequence[int], num_layers: int, rng: np.random.Generator) -> list[int]:
    """Draw a contiguous partition into as many phases that is not this one, where there is another."""
    k = len(boundaries) + 1
    while True:
        drawn = random_boundaries(num_layers, k, rng)
        if drawn != list(boundaries) or k in (1, num_layers):
            return drawn
