"""The numbers of the small-scale study: from results of runs to rows, from rows to statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from raptor.errors import ConfigError
from raptor.results.gather import Run, Study
from raptor.results.resampling import Paired, correlate
from raptor.results.statistics import Spread

TASK = "partitions"
STAGES = ("trained", "checkpoint", "untrained")
KEYS = ("teacher", "training", "stage", "drop_path", "step", "seed")
PER_TEACHER = ["teacher", "stage", "drop_path"]
MEASURES = {
    "adjacent": "mean distance of adjacent layers",
    "contrast": "contrast of the partition",
    "share": "share of distance cut",
}
SCORES = {"r2_cls": "R2 cls", "r2_patches": "R2 patches", "agreement": "agreement", "kept": "accuracy kept"}
SIDES = {"intra": "same phase", "inter": "another phase"}


def runs(study: Study) -> list[Run]:
    """Runs of the study's task.

    Raises
    ------
    ConfigError
        If there is none, or one says not what its teacher was.
    """
    found = study.of_task(TASK)
    if not found:
        raise ConfigError(f"{study.root} holds no finished run of task={TASK}: run experiment=small_scale first")
    for run in found:
        if run["model"]["tags"].get("stage") not in STAGES:
            raise ConfigError(
                f"{study.root / run['name']}: task.tags.stage={run['model']['tags'].get('stage')} is unknown; choose "
                f"{', '.join(STAGES)}"
            )
    return found


def teachers(found: Sequence[Run]) -> pd.DataFrame:
    """One row for each teacher: :data:`KEYS`, ``top1``, ``adjacent``, and ``contrast_kK``, ``share_kK`` of max-cut."""
    return pd.DataFrame([_teacher(run) for run in found])


def _keys(run: Run) -> dict[str, Any]:
    tags = run["model"]["tags"]
    untrained = tags["stage"] == "untrained"
    # checkpoints of one training are no independent teachers
    training = f"{'untrained' if untrained else tags.get('drop_path')}-{tags.get('seed')}"
    return {"teacher": run["name"], "training": training, **{key: tags.get(key) for key in KEYS[2:]}}


def _teacher(run: Run) -> dict[str, Any]:
    measures = run["teacher_measures"]
    best = {
        f"{name}_k{k}": at["measures"][name] for k, at in measures["maxcut"].items() for name in ("contrast", "share")
    }
    return {
        **_keys(run),
        "top1": run["metrics"].get("val/teacher_top1"),
        "adjacent": measures["adjacent"],
        **best,
    }


def fits(found: Sequence[Run]) -> pd.DataFrame:
    """One row for each surrogate: its teacher, ``k``, ``kind``, ``draw``, measures of the partition, and scores.

    ``kept`` is top-1 over the teacher's; R2 and cosine are means over the layers 1..L.
    """
    rows = []
    for run in found:
        teacher = _teacher(run)
        for name, partition in run["partitions"].items():
            prefix = f"val/{name}/"
            scores = {key.removeprefix(prefix): v for key, v in run["metrics"].items() if key.startswith(prefix)}
            scores = {"top1": None, "agreement": None} | scores
            known = scores["top1"] is not None and teacher["top1"]
            rows.append(
                {key: teacher[key] for key in KEYS}
                | {"teacher_top1": teacher["top1"], "adjacent": teacher["adjacent"], "piece": name}
                | {key: partition[key] for key in ("k", "kind", "draw")}
                | {"labels": " ".join(map(str, partition["labels"]))}
                | partition["measures"]
                | scores
                | {"kept": scores["top1"] / teacher["top1"] if known else None}
            )
    frame = pd.DataFrame(rows)
    numbers = [*MEASURES, *SCORES, "teacher_top1", "top1", "within", "cross", "drop_path"]
    return frame.astype(dict.fromkeys(numbers, float))


def layers(found: Sequence[Run]) -> pd.DataFrame:
    """One row for each surrogate, token type and layer, with R2 and cosine."""
    return pd.DataFrame(
        [
            _keys(run)
            | {key: run["partitions"][piece][key] for key in ("k", "kind", "draw")}
            | {"type": kind, "layer": layer, "r2": r2, "cosine": curves["cosine"][kind][layer - 1]}
            for run in found
            for piece, curves in run["layers"].items()
            for kind, values in curves["r2"].items()
            for layer, r2 in enumerate(values, start=1)
        ]
    )


def swaps(found: Sequence[Run]) -> pd.DataFrame:
    """One row for each layer swap: its teacher, what was swapped, ``kept`` (top-1 over the teacher's), agreement."""
    rows = []
    for run in found:
        teacher = _teacher(run)
        for swap in run["swaps"]:
            kept = swap["top1"] / teacher["top1"] if swap["top1"] is not None and teacher["top1"] else None
            rows.append({key: teacher[key] for key in KEYS} | swap | {"kept": kept})
    return pd.DataFrame(rows)


def subsets(fits: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What correlations are taken over, by name; the first two differ in the teachers, the last in the partitions."""
    trained, best = fits["stage"] == "trained", fits["kind"] == "maxcut"
    return {
        "trained teachers, max-cut": fits[trained & best],
        "trained, checkpoints and untrained, max-cut": fits[best],
        "trained teachers, all partitions": fits[trained],
    }


def correlations(fits: pd.DataFrame) -> pd.DataFrame:
    """Correlation of each phase measure with each score, for each subset and k: see :func:`correlate`."""
    rows = []
    for name, subset in subsets(fits).items():
        for k, own in subset[subset["k"] > 1].groupby("k"):
            for measure in MEASURES:
                for score in SCORES:
                    found = correlate(own[measure], own[score], own["training"].tolist())
                    rows.append({"over": name, "k": k, "measure": measure, "score": score, **asdict(found)})
    return pd.DataFrame(rows)


def paired(fits: pd.DataFrame) -> pd.DataFrame:
    """Max-cut less the mean over draws of each other kind, within each teacher.

    Returns
    -------
    DataFrame
        One row for each stage, k, kind and score: ``mean``, ``ci95``, ``p``, ``above``, ``n`` teachers.
    """
    differences = paired_differences(fits)
    rows = []
    for (stage, k, against, score), own in differences.groupby(["stage", "k", "against", "score"], sort=False):
        rows.append({"stage": stage, "k": k, "against": against, "score": score, **_paired(own["difference"])})
    return pd.DataFrame(rows)


def paired_differences(fits: pd.DataFrame) -> pd.DataFrame:
    """One row for each teacher, k, other kind and score: ``difference``, max-cut less the other kind."""
    rows = []
    for keys, own in fits.groupby([*PER_TEACHER, "k"], sort=False, dropna=False):
        means = own.groupby("kind")[list(SCORES)].mean()
        for against in means.index.drop("maxcut", errors="ignore") if "maxcut" in means.index else []:
            for score in SCORES:
                difference = means.loc["maxcut", score] - means.loc[against, score]
                about = dict(zip((*PER_TEACHER, "k"), keys, strict=True))
                rows.append(about | {"against": against, "score": score, "difference": difference})
    return pd.DataFrame(rows, columns=[*PER_TEACHER, "k", "against", "score", "difference"])


def _paired(differences: pd.Series) -> dict[str, Any]:
    found = Paired.of(differences.tolist())
    return {
        "mean": found.spread.mean,
        "ci95": found.spread.ci95,
        "p": found.p,
        "above": found.above,
        "n": found.spread.n,
    }


def spreads(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Mean, standard deviation, half width of Student's 95 % interval and n of columns, by group."""
    rows = []
    for keys, own in frame.groupby(list(by), sort=True, dropna=False):
        found = {name: Spread.of(own[name].dropna().astype(float).tolist()) for name in values}
        parts = {
            f"{name}_{part}": getattr(s, part) for name, s in found.items() for part in ("mean", "std", "ci95", "n")
        }
        rows.append(dict(zip(by, keys, strict=True)) | parts)
    return pd.DataFrame(rows)


def along(fits: pd.DataFrame, teachers: pd.DataFrame, by: str) -> pd.DataFrame:
    """Teachers and their max-cut surrogates by rate of stochastic depth or by step.

    Parameters
    ----------
    fits, teachers
        Rows of the teachers in question.
    by
        ``"drop_path"`` or ``"step"``.

    Returns
    -------
    DataFrame
        One row for each value and k: spreads over seeds of ``teacher_top1``, the measures and the scores.
    """
    best = fits[(fits["kind"] == "maxcut") & fits["teacher"].isin(teachers["teacher"])]
    return spreads(best, [by, "k"], ["teacher_top1", *MEASURES, *SCORES, "r2_registers"] if len(best) else [])


def of_training(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the untrained teachers, of the checkpoints, and of those trained teachers that the checkpoints became."""
    rates = frame.loc[frame["stage"] == "checkpoint", "drop_path"].unique()
    became = (frame["stage"] == "trained") & frame["drop_path"].isin(rates)
    return frame[became | (frame["stage"] != "trained")]


def swap_effects(swaps: pd.DataFrame) -> pd.DataFrame:
    """What swaps within and across phases keep, by their size, over teachers; draws of one teacher are averaged first.

    Returns
    -------
    DataFrame
        One row for each stage, size and score (``kept``, ``agreement``): ``intra``, ``inter`` with ``_ci95``, and the
        paired difference intra less inter as in :func:`paired`.
    """
    rows = []
    for (stage, size), own in swaps.groupby(["stage", "size"], sort=True) if len(swaps) else []:
        for score in ("kept", "agreement"):
            means = own.dropna(subset=[score]).groupby(["teacher", "side"])[score].mean().unstack()
            if {"intra", "inter"} - set(means.columns):
                continue
            sides = {side: Spread.of(means[side].dropna().tolist()) for side in ("intra", "inter")}
            values = {f"{side}{end}": v for side, s in sides.items() for end, v in (("", s.mean), ("_ci95", s.ci95))}
            difference = _paired(means["intra"] - means["inter"])
            rows.append({"stage": stage, "size": size, "score": score, **values, **difference})
    return pd.DataFrame(rows)


def swaps_at_equal_gap(swaps: pd.DataFrame) -> pd.DataFrame:
    """Intra less inter for swaps of one layer whose two layers lie equally far apart in depth.

    Layers of one phase are also near each other in depth; this holds that constant. Within each teacher, the means at
    each gap that occurs on both sides are subtracted, and averaged over gaps.

    Returns
    -------
    DataFrame
        One row for each stage and score: the paired difference, and ``gaps``, the mean number of gaps compared.
    """
    rows = []
    single = swaps[swaps["size"] == 1] if len(swaps) else swaps
    for stage, own in single.groupby("stage", sort=True) if len(single) else []:
        for score in ("kept", "agreement"):
            means = own.dropna(subset=[score]).groupby(["teacher", "gap", "side"])[score].mean().unstack()
            if {"intra", "inter"} - set(means.columns):
                continue
            by_gap = (means["intra"] - means["inter"]).dropna()
            found = by_gap.groupby("teacher").mean()
            gaps = float(by_gap.groupby("teacher").size().mean()) if len(by_gap) else np.nan
            rows.append({"stage": stage, "score": score, "gaps": gaps, **_paired(found)})
    return pd.DataFrame(rows)


def swap_trends(swaps: pd.DataFrame) -> pd.DataFrame:
    """Correlation of what a swap keeps with the distance and the depth between the layers, by stage and size."""
    rows = []
    for (stage, size), own in swaps.groupby(["stage", "size"], sort=True) if len(swaps) else []:
        for measure in ("distance", "gap"):
            for score in ("kept", "agreement"):
                found = correlate(own[measure], own[score].astype(float), own["training"].tolist())
                rows.append({"stage": stage, "size": size, "measure": measure, "score": score, **asdict(found)})
    return pd.DataFrame(rows)
