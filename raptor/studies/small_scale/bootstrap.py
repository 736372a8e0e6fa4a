"""Compute correlations and paired differences with intervals, where several rows come from one seed."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from raptor.reporting.statistics import MeanCI

RESAMPLES = 2000
FEWEST = 6  # clusters of which a bootstrap says anything: with 3, a draw in nine is one of them repeated
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Two correlations of the same pairs, each with its 95 % bootstrap interval.

    Attributes
    ----------
    spearman, spearman_low, spearman_high
        Rank correlation and its interval; NaN where it is not defined.
    pearson, pearson_low, pearson_high
        Linear correlation and its interval.
    n
        Pairs.
    clusters
        Groups that were resampled as wholes.
    """

    spearman: float
    spearman_low: float
    spearman_high: float
    pearson: float
    pearson_low: float
    pearson_high: float
    n: int
    clusters: int


def correlate(x: ArrayLike, y: ArrayLike, clusters: Sequence[Hashable], resamples: int = RESAMPLES) -> Correlation:
    """Compute Spearman and Pearson correlation with percentile intervals of a bootstrap over clusters.

    Rows of one cluster are no independent observations, so clusters are drawn with replacement and bring all of
    their rows along (the cluster bootstrap: Davison and Hinkley 1997, section 3.8). A draw in which a correlation is
    not defined is left out.

    Parameters
    ----------
    x, y
        Pairs, ``(n,)`` each; pairs with a NaN are left out.
    clusters
        What each pair belongs to.
    resamples
        Draws of the bootstrap.

    Returns
    -------
    Correlation
        NaN in all fields but the counts for fewer than three pairs or a constant side; without an interval for
        fewer than :data:`FEWEST` clusters.
    """
    values = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    kept = ~np.isnan(values).any(axis=0)
    a, b = values[:, kept]
    names = [name for name, keep in zip(clusters, kept, strict=True) if keep]
    members = {name: i for i, name in enumerate(dict.fromkeys(names))}
    of = np.array([members[name] for name in names], dtype=int)
    n, m = len(names), len(members)
    if n < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Correlation(nan, nan, nan, nan, nan, nan, n, m)
    spearman, pearson = float(stats.spearmanr(a, b)[0]), float(stats.pearsonr(a, b)[0])
    low = high = (nan, nan)
    if m >= FEWEST:
        draws = np.random.default_rng(0).multinomial(m, np.full(m, 1 / m), size=resamples)
        weights = draws[:, of].astype(float)
        draws_of = [
            weighted_pearson(weighted_ranks(a, weights), weighted_ranks(b, weights), weights),
            weighted_pearson(a, b, weights),
        ]
        with warnings.catch_warnings():  # where no draw has a correlation, the interval is NaN
            warnings.simplefilter("ignore", RuntimeWarning)
            low, high = np.nanpercentile(np.stack(draws_of, axis=1), [2.5, 97.5], axis=0).tolist()
    return Correlation(spearman, low[0], high[0], pearson, low[1], high[1], n, m)


def weighted_ranks(x: Array, weights: Array) -> Array:
    """Compute midranks of values in samples that hold each so many times.

    Parameters
    ----------
    x
        Values ``(n,)``.
    weights
        How often each sample holds each value, ``(R, n)``.

    Returns
    -------
    ndarray
        ``(R, n)``; ranks of values that a sample does not hold mean nothing.
    """
    below, equal = (x[None, :] < x[:, None]).astype(float), (x[None, :] == x[:, None]).astype(float)
    return weights @ below.T + (weights @ equal.T + 1) / 2


def weighted_pearson(x: Array, y: Array, weights: Array) -> Array:
    """Compute linear correlation in samples that hold each pair so many times: ``(n,)`` or ``(R, n)`` to ``(R,)``."""
    w = weights / weights.sum(axis=1, keepdims=True)
    dx, dy = (v - (w * v).sum(axis=1, keepdims=True) for v in (x, y))
    cov, var = (w * dx * dy).sum(axis=1), (w * dx**2).sum(axis=1) * (w * dy**2).sum(axis=1)
    # a sample of one value repeated has no variance but for rounding
    return np.divide(cov, np.sqrt(var), out=np.full(len(cov), np.nan), where=var > 1e-24)


@dataclass(frozen=True)
class Paired:
    """Differences within pairs.

    Attributes
    ----------
    interval
        Mean of the differences with Student's 95 % interval.
    p
        Two-sided Wilcoxon signed-rank test, exact for few pairs; NaN where all differences are zero.
    above
        Pairs whose difference is above zero.
    """

    interval: MeanCI
    p: float
    above: int

    @classmethod
    def of(cls, differences: Sequence[float]) -> Paired:
        """Summarise differences, of which there may be none; NaN is left out."""
        d = np.array([value for value in differences if value == value])
        p = nan
        if np.any(d != 0):
            with warnings.catch_warnings():  # of ties, for which scipy falls back to the normal approximation
                warnings.simplefilter("ignore")
                p = float(stats.wilcoxon(d).pvalue)
        return cls(MeanCI.of(d.tolist()), p, int((d > 0).sum()))
