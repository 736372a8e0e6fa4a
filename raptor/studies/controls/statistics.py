"""Compare methods: mean and interval over seeds, and tied blocks less each rival, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from statistics import fmean
from typing import Any

import pandas as pd

from raptor.reporting.statistics import MeanCI
from raptor.studies.controls.rows import KINDS, MEASURES, OTHERS, TIED

LOWER_IS_BETTER = ("eps_cls", "eps_patches")
COMPARED = ("probe", "head", *(f"r2_{kind}" for kind in KINDS), *(f"r2_{kind}_last" for kind in KINDS))
WINS, LOSES, OPEN = "wins", "loses", "open"


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each k and method: parameters, FLOPs, images, and each measure with its interval over seeds.

    Columns of a measure are ``_mean``, ``_std``, ``_ci95`` (half width of Student's interval) and ``_n``.
    """
    found = []
    for (k, method), own in rows.groupby(["k", "method"], sort=False):
        line: dict[str, Any] = {"k": k, "method": method, "seeds": own["seed"].nunique()}
        line |= {key: own[key].iloc[0] for key in ("parameters", "flops", "images")}
        for measure in MEASURES:
            mean = MeanCI.of(own[measure].dropna().tolist())
            parts = {"mean": mean.mean, "std": mean.std, "ci95": mean.ci95, "n": mean.n}
            line |= {f"{measure}_{part}": value for part, value in parts.items()}
        found.append(line)
    return pd.DataFrame(found)


def floor_rows(floors: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], k: int) -> pd.DataFrame:
    """Return a row for each floor with the measures that it has; ``floors`` as :func:`.rows.floors` gives them."""
    found = []
    for name, by in floors.items():
        line: dict[str, Any] = {"k": k, "method": name}
        for kind in KINDS:
            line |= {f"r2_{kind}": fmean(by["r2_centered"][kind]), f"r2_{kind}_last": by["r2_centered"][kind][-1]}
            line |= {f"eps_{kind}": fmean(by["eps"][kind])}
        found.append(line)
    frame = pd.DataFrame(found)
    for kind in KINDS:
        frame[f"above_{kind}"] = frame[f"r2_{kind}"] - frame[f"r2_{kind}"].max()
    return frame


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return tied blocks on max-cut phases less each other method, paired by seed.

    Returns
    -------
    DataFrame
        ``k``, ``method``, ``measure``, ``mean``, ``ci95``, ``n``, and ``verdict``: ``wins`` where the 95 % Student
        interval of the difference lies above 0, ``loses`` where it lies below, else ``open``.
    """
    found = []
    for k, of_k in rows.groupby("k", sort=False):
        tied = of_k[of_k["method"] == TIED].set_index("seed")
        for method, own in of_k[of_k["method"] != TIED].groupby("method", sort=False):
            rival = own.set_index("seed")
            for measure in COMPARED:
                difference = (tied[measure] - rival[measure]).dropna()
                mean = MeanCI.of(difference.tolist())
                line = {"k": k, "method": method, "measure": measure, "mean": mean.mean, "ci95": mean.ci95, "n": mean.n}
                found.append(line | {"verdict": verdict(mean)})
    return pd.DataFrame(found)


def verdict(difference: MeanCI) -> str:
    """Return whether an interval of a difference lies above 0, below, or neither."""
    half = 0.0 if difference.std == 0 else difference.ci95
    if difference.mean - half > 0:
        return WINS
    return LOSES if difference.mean + half < 0 else OPEN


def findings(compared: pd.DataFrame) -> pd.DataFrame:
    """Return for each k and measure which rivals of equal parameters tied blocks beat, lose to, or neither."""
    equal = compared[~compared["method"].isin(OTHERS)]
    found = []
    for (k, measure), own in equal.groupby(["k", "measure"], sort=False):
        by = {word: own.loc[own["verdict"] == word, "method"].tolist() for word in (WINS, LOSES, OPEN)}
        found.append({"k": k, "measure": measure, **by})
    return pd.DataFrame(found)


def parameter_range(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the least and greatest parameters of rivals over those of the tied blocks of their k."""
    tied = rows[rows["method"] == TIED].groupby("k")["parameters"].first()
    equal = rows[~rows["method"].isin(OTHERS)]
    if not len(tied):
        return nan, nan
    shares = equal["parameters"] / equal["k"].map(tied)
    return float(shares.min()), float(shares.max())
