"""Test associations apart from the drop rate, shared seeds, sizes of phases and the number of tests.

Teachers of one drop rate resemble each other in everything, so a correlation over rates repeats what the rate does.
Teachers of one seed share their first weights and the order of their images, so the seed is the unit of resampling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from raptor.reporting.statistics import MeanCI
from raptor.studies.small_scale.bootstrap import correlate

Array = NDArray[np.float64]
PERMUTATIONS = 1999  # drawn where there are more
DIGITS = 12  # rounding alone is no difference


def holm(p: Sequence[float]) -> Array:
    """Adjust p-values by Holm's step-down method, which bounds the chance of any false finding; NaN stays."""
    return _adjust(p, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p: Sequence[float]) -> Array:
    """Adjust p-values by Benjamini and Hochberg's method, which bounds the share of false findings; NaN stays."""

    def step_up(ordered: Array) -> Array:
        scaled = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjust(p, step_up)


def _adjust(p: Sequence[float], method: Callable[[Array], Array]) -> Array:
    values = np.asarray(p, dtype=float)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    adjusted = np.full(len(values), np.nan)
    if len(order):
        adjusted[order] = np.minimum(method(values[order]), 1.0)
    return adjusted


def without_rates(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Subtract the mean of each drop rate from columns."""
    values = frame[list(columns)].astype(float)
    return (values - values.groupby(frame["drop_path"]).transform("mean")).round(DIGITS)


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float:
    """Compute the rank correlation of x and y with the linear effect of the ranks of a third taken off both."""
    a, b, c = (stats.rankdata(np.asarray(v, dtype=float)) for v in (x, y, given))
    if any(np.ptp(v) == 0 for v in (a, b)):
        return math.nan
    design = np.stack([np.ones_like(c), c], axis=1)
    left, right = (v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (a, b))
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 1e-9 else math.nan


def correlations_within_rates(fits: pd.DataFrame, measures: Iterable[str], scores: Iterable[str]) -> pd.DataFrame:
    """Correlate measures of max-cut partitions with scores over trained teachers, within drop rates.

    Parameters
    ----------
    fits
        Rows of surrogates.
    measures, scores
        Columns.

    Returns
    -------
    DataFrame
        A row for each k, measure and score: ``raw``, Spearman's correlation over all rates; ``within``, that after the
        mean of each rate is taken off both, with ``within_low`` and ``within_high``, its interval by a bootstrap over
        seeds (none for fewer than six); ``partial``, the rank correlation given the rate; ``p``, two-sided, of
        ``within`` when seeds are permuted, the same in all rates; ``p_holm`` and ``p_bh``, adjusted over all rows;
        ``n`` and ``seeds``.
    """
    best = fits[(fits["stage"] == "trained") & (fits["kind"] == "maxcut") & (fits["k"] > 1)]
    rows = []
    for k, own in best.groupby("k"):
        for measure, score in itertools.product(measures, scores):
            known = own.dropna(subset=[measure, score])
            rest = without_rates(known, [measure, score])
            seeds = known["seed"].tolist()
            found = correlate(rest[measure], rest[score], seeds)
            rows.append(
                {"k": k, "measure": measure, "score": score}
                | {"raw": correlate(known[measure], known[score], seeds, resamples=1).spearman}
                | {"within": found.spearman, "within_low": found.spearman_low, "within_high": found.spearman_high}
                | {"partial": partial_spearman(known[measure], known[score], known["drop_path"])}
                | {"p": permute_seeds(known.assign(**rest), measure, score)}
                | {"n": found.n, "seeds": found.clusters}
            )
    frame = pd.DataFrame(rows)
    if len(frame):
        frame["p_holm"], frame["p_bh"] = holm(frame["p"].tolist()), benjamini_hochberg(frame["p"].tolist())
    return frame


def permute_seeds(frame: pd.DataFrame, measure: str, score: str) -> float:
    """Test a correlation by handing the scores of one seed to another, the same in all rates.

    With s seeds there are s! orders, so that p is at least 1 / s!. NaN where the correlation is not defined.
    """
    x, y = (
        frame.pivot_table(index="drop_path", columns="seed", values=name).dropna(axis=1) for name in (measure, score)
    )
    both = x.columns.intersection(y.columns)
    a, b = x[both].to_numpy(), y[both].to_numpy()
    if a.shape[1] < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    count = a.shape[1]
    if math.factorial(count) <= PERMUTATIONS + 1:
        orders = list(itertools.permutations(range(count)))
    else:
        rng = np.random.default_rng(0)
        orders = [tuple(range(count)), *(tuple(rng.permutation(count)) for _ in range(PERMUTATIONS))]
    statistics = np.abs([stats.spearmanr(a.ravel(), b[:, list(order)].ravel())[0] for order in orders])
    return float(np.mean(statistics >= statistics[0] - 1e-9))


def flip_signs(differences: Sequence[float]) -> float:
    """Test the mean of differences by flipping their signs, two-sided: p is at least 2 / 2^n; NaN for none."""
    d = np.array([value for value in differences if value == value])
    if not len(d) or not d.any():
        return math.nan
    if 2 ** len(d) <= PERMUTATIONS + 1:
        signs = np.array(list(itertools.product((1, -1), repeat=len(d))))
    else:
        drawn = np.random.default_rng(0).choice([1, -1], size=(PERMUTATIONS, len(d)))
        signs = np.concatenate([np.ones((1, len(d)), dtype=int), drawn])
    means = np.abs(signs @ d)
    return float(np.mean(means >= means[0] - 1e-12))


def balance(labels: str) -> float:
    """Measure how equal the sizes of phases are: exp(entropy of sizes) over their number, 1 for equal ones."""
    sizes = np.unique(labels.split(), return_counts=True)[1]
    shares = sizes / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / len(sizes))


def lead_at_equal_balance(fits: pd.DataFrame, scores: Iterable[str]) -> pd.DataFrame:
    """Extrapolate max-cut's lead over random contiguous partitions to phases of equally balanced sizes.

    Max-cut prefers phases of equal size, and equal sizes fit better by themselves. So the difference of scores within a
    teacher is regressed on the difference of :func:`balance`, and read where that is 0.

    Returns
    -------
    DataFrame
        A row for each k and score over trained teachers: ``mean``, the lead as it is; ``equal``, the lead at equal
        balance with ``equal_ci95``, its 95 % Student interval (teachers taken as independent); ``balance_maxcut`` and
        ``balance_random``; ``n`` pairs.
    """
    trained = fits[(fits["stage"] == "trained") & fits["kind"].isin(["maxcut", "random"]) & (fits["k"] > 1)]
    trained = trained.assign(balance=trained["labels"].map(balance))
    rows = []
    for k, own in trained.groupby("k"):
        best = own[own["kind"] == "maxcut"].set_index("teacher")
        random = own[own["kind"] == "random"]
        for score in scores:
            ahead = (random["teacher"].map(best[score]) - random[score]).to_numpy(dtype=float)
            gap = (random["teacher"].map(best["balance"]) - random["balance"]).to_numpy(dtype=float)
            lead, apart = ahead[~np.isnan(ahead)], gap[~np.isnan(ahead)]
            row = {"k": k, "score": score, "mean": float(lead.mean()) if len(lead) else math.nan}
            row |= {"equal": math.nan, "equal_ci95": math.nan}
            if len(lead) > 2 and np.ptp(apart) > 0:
                fit = stats.linregress(apart, lead)
                half = float(stats.t.ppf(0.975, len(lead) - 2)) * float(fit.intercept_stderr)
                row |= {"equal": float(fit.intercept), "equal_ci95": half}
            row |= {"balance_maxcut": float(best["balance"].mean())}
            rows.append(row | {"balance_random": float(random["balance"].mean()), "n": len(lead)})
    return pd.DataFrame(rows)


def by_seed(differences: pd.DataFrame) -> dict[str, float]:
    """Average differences of teachers over each seed, and give mean, interval and test with seeds as the unit.

    Parameters
    ----------
    differences
        Columns ``seed`` and ``difference``.
    """
    means = differences.groupby("seed")["difference"].mean().dropna().tolist()
    interval = MeanCI.of(means)
    return {"seeds": interval.n, "ci95_by_seed": interval.ci95, "p_by_seed": flip_signs(means)}
