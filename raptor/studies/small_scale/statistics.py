"""Compute the statistics of the small-scale study from the rows of :mod:`raptor.studies.small_scale.rows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from raptor.reporting.statistics import MeanCI
from raptor.studies.small_scale.bootstrap import Paired, correlate
from raptor.studies.small_scale.confounding import (
    benjamini_hochberg,
    by_seed,
    correlations_within_rates,
    holm,
    lead_at_equal_balance,
)
from raptor.studies.small_scale.rows import BASELINES, MEASURES, SCORES

PER_TEACHER = ["teacher", "training", "stage", "drop_path", "seed"]
WITHIN = "within trained teachers, all partitions"
CONTIGUOUS = "within trained teachers, contiguous ones"


def scores_of(fits: pd.DataFrame) -> list[str]:
    """List the :data:`SCORES` that some surrogate has: a teacher may have no class token, or data no labels of its."""
    return [score for score in SCORES if fits[score].notna().any()]


def subsets(fits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Select what correlations are taken over: the first two differ in the teachers, the others in the partitions.

    Shuffled partitions have little contrast and cut little; without them it is contiguous ones that are compared.
    """
    trained, best = fits["stage"] == "trained", fits["kind"] == "maxcut"
    return {
        "trained teachers, max-cut": fits[trained & best],
        "trained, checkpoints and untrained, max-cut": fits[best],
        WITHIN: fits[trained],
        CONTIGUOUS: fits[trained & (fits["kind"] != "shuffled")],
    }


def centred(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Subtract each teacher's mean from columns: what is left differs within teachers only."""
    values = frame[list(columns)].astype(float)
    rest = values - values.groupby(frame["teacher"]).transform("mean")
    return frame.assign(**rest.round(12))  # rounding alone is no difference


def correlations(fits: pd.DataFrame) -> pd.DataFrame:
    """Correlate each phase measure with each score, for each subset and k: see :func:`correlate`."""
    rows, scores = [], scores_of(fits)
    for name, subset in subsets(fits).items():
        within = name in (WITHIN, CONTIGUOUS)
        measures = [m for m in MEASURES if not within or m != "adjacent"]  # which is the same for all partitions
        for k, group in subset[subset["k"] > 1].groupby("k"):
            if within:
                group = centred(group, [*measures, *scores])
            for measure in measures:
                for score in scores:
                    estimate = correlate(group[measure], group[score], group["seed"].tolist())
                    rows.append({"over": name, "k": k, "measure": measure, "score": score, **asdict(estimate)})
    return pd.DataFrame(rows)


def paired(fits: pd.DataFrame) -> pd.DataFrame:
    """Subtract the mean over draws of each other kind from max-cut, within each teacher.

    Returns
    -------
    DataFrame
        One row for each stage, k, kind and score: ``mean``, ``ci95``, ``p``, ``above``, ``n`` trainings, taken as
        independent; ``p_holm`` and ``p_bh``, adjusted over all rows of a stage; and with seeds as the unit ``seeds``,
        ``ci95_by_seed`` and ``p_by_seed``. Checkpoints of one training are averaged, as they are not independent.
    """
    differences = paired_differences(fits)
    rows = []
    for (stage, k, against, score), group in differences.groupby(["stage", "k", "against", "score"], sort=False):
        by_training = group.groupby("training")["difference"].mean()
        labels = {"stage": stage, "k": k, "against": against, "score": score}
        rows.append(labels | _paired(by_training) | by_seed(group))
    return adjusted(pd.DataFrame(rows))


def adjusted(frame: pd.DataFrame) -> pd.DataFrame:
    """Add p-values adjusted over all rows of a stage."""
    for name, method in (("p_holm", holm), ("p_bh", benjamini_hochberg)) if len(frame) else ():
        frame[name] = frame.groupby("stage", sort=False)["p"].transform(lambda p, method=method: method(p.tolist()))
    return frame


def within_rates(fits: pd.DataFrame) -> pd.DataFrame:
    """Correlate phase measures with scores within drop rates: see :func:`correlations_within_rates`."""
    return correlations_within_rates(fits, MEASURES, scores_of(fits))


def equal_balance(fits: pd.DataFrame) -> pd.DataFrame:
    """Extrapolate max-cut's lead to equal sizes of phases: see :func:`lead_at_equal_balance`."""
    return lead_at_equal_balance(fits, scores_of(fits))


def paired_differences(fits: pd.DataFrame) -> pd.DataFrame:
    """List max-cut less each other kind as ``difference``, for each teacher, k, kind and score."""
    rows = []
    for keys, group in fits.groupby([*PER_TEACHER, "k"], sort=False, dropna=False):
        means = group.groupby("kind")[scores_of(fits)].mean()
        for against in means.index.drop("maxcut", errors="ignore") if "maxcut" in means.index else []:
            for score, difference in (means.loc["maxcut"] - means.loc[against]).items():
                labels = dict(zip((*PER_TEACHER, "k"), keys, strict=True))
                rows.append(labels | {"against": against, "score": score, "difference": difference})
    return pd.DataFrame(rows, columns=[*PER_TEACHER, "k", "against", "score", "difference"])


def _paired(differences: pd.Series) -> dict[str, Any]:
    pair = Paired.of(differences.tolist())
    return {
        "mean": pair.interval.mean,
        "ci95": pair.interval.ci95,
        "p": pair.p,
        "above": pair.above,
        "n": pair.interval.n,
    }


def summarize_by(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Compute mean, standard deviation, half width of Student's 95 % interval and n of columns, by group."""
    rows = []
    for keys, group in frame.groupby(list(by), sort=True, dropna=False):
        intervals = {name: MeanCI.of(group[name].dropna().astype(float).tolist()) for name in values}
        parts = {
            f"{name}_{part}": getattr(s, part) for name, s in intervals.items() for part in ("mean", "std", "ci95", "n")
        }
        rows.append(dict(zip(by, keys, strict=True)) | parts)
    return pd.DataFrame(rows)


def summarize_surrogates(fits: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Summarise teachers and their max-cut surrogates by rate of stochastic depth, step, or both.

    Returns
    -------
    DataFrame
        One row for each value and k: spreads over seeds of ``teacher_top1``, measures, scores and their baselines.
    """
    best = fits[fits["kind"] == "maxcut"]
    values = ["teacher_top1", *MEASURES, *SCORES, "r2_registers", *BASELINES]
    return summarize_by(best, [*by, "k"], [value for value in values if best[value].notna().any()])


def training_trajectory(fits: pd.DataFrame) -> pd.DataFrame:
    """Select, for each drop rate with checkpoints, these, what they became, and untrained teachers as step 0."""
    rates = sorted(fits.loc[fits["stage"] == "checkpoint", "drop_path"].unique())
    untrained = fits["stage"] == "untrained"
    parts = [fits[untrained | (fits["drop_path"] == rate)].assign(drop_path=rate) for rate in rates]
    return pd.concat(parts) if parts else fits[untrained]


def swap_effects(swaps: pd.DataFrame) -> pd.DataFrame:
    """Compare swaps within and across phases, by their size, over teachers; draws of a teacher are averaged first.

    Returns
    -------
    DataFrame
        One row for each stage, size and score (``kept``, ``agreement``): ``intra``, ``inter`` with ``_ci95``, and the
        paired difference intra less inter as in :func:`paired`.
    """
    rows = []
    for (stage, size), group in swaps.groupby(["stage", "size"], sort=True) if len(swaps) else []:
        for score in ("kept", "agreement"):
            means = group.dropna(subset=[score]).groupby(["teacher", "side"])[score].mean().unstack()
            if {"intra", "inter"} - set(means.columns):
                continue
            sides = {side: MeanCI.of(means[side].dropna().tolist()) for side in ("intra", "inter")}
            values = {f"{side}{end}": v for side, s in sides.items() for end, v in (("", s.mean), ("_ci95", s.ci95))}
            difference = _paired(means["intra"] - means["inter"])
            rows.append({"stage": stage, "size": size, "score": score, **values, **difference})
    return pd.DataFrame(rows)


def swaps_at_equal_gap(swaps: pd.DataFrame) -> pd.DataFrame:
    """Subtract inter from intra for swaps of one layer whose two layers lie equally far apart in depth.

    Layers of one phase are also near each other in depth; this holds that constant. Within each teacher, the means at
    each gap that occurs on both sides are subtracted, and averaged over gaps.

    Returns
    -------
    DataFrame
        One row for each stage and score: the paired difference, and ``gaps``, the mean number of gaps compared.
    """
    rows = []
    single = swaps[swaps["size"] == 1] if len(swaps) else swaps
    for stage, group in single.groupby("stage", sort=True) if len(single) else []:
        for score in ("kept", "agreement"):
            means = group.dropna(subset=[score]).groupby(["teacher", "gap", "side"])[score].mean().unstack()
            if {"intra", "inter"} - set(means.columns):
                continue
            by_gap = (means["intra"] - means["inter"]).dropna()
            by_teacher = by_gap.groupby("teacher").mean()
            gaps = float(by_gap.groupby("teacher").size().mean()) if len(by_gap) else np.nan
            rows.append({"stage": stage, "score": score, "gaps": gaps, **_paired(by_teacher)})
    return pd.DataFrame(rows)


def swap_trends(swaps: pd.DataFrame) -> pd.DataFrame:
    """Correlate, within teachers, what a swap keeps with the distance and the depth between the layers."""
    rows = []
    for (stage, size), group in swaps.groupby(["stage", "size"], sort=True) if len(swaps) else []:
        measures, scores = ("distance", "gap"), ("kept", "agreement")
        group = centred(group, [*measures, *scores])
        for measure in measures:
            for score in scores:
                estimate = correlate(group[measure], group[score], group["seed"].tolist())
                rows.append({"stage": stage, "size": size, "measure": measure, "score": score, **asdict(estimate)})
    return pd.DataFrame(rows)


def above_floors(fits: pd.DataFrame) -> pd.DataFrame:
    """Summarise R2 centred, and by how much it exceeds the best trivial prediction, over teachers.

    Returns
    -------
    DataFrame
        One row for each stage, k and kind: of each measure that was taken its ``_mean``, ``_std`` and ``_n``; empty
        where the runs are older than these measures.
    """
    names = [f"{name}_{kind}" for name in ("r2_centered", "above_floor") for kind in ("cls", "patches")]
    known = [name for name in names if name in fits and fits[name].notna().any()]
    rows = []
    for (stage, k, kind), own in fits.groupby(["stage", "k", "kind"], sort=False) if known else ():
        by_teacher = own.groupby("teacher")[known].mean()
        means = {name: MeanCI.of(by_teacher[name].dropna().tolist()) for name in known}
        parts = {f"{name}_{part}": getattr(mean, part) for name, mean in means.items() for part in ("mean", "std", "n")}
        rows.append({"stage": stage, "k": k, "kind": kind} | parts)
    return pd.DataFrame(rows)
