"""Means with intervals of what was measured, and what they say about each finding of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raptor.results.statistics import Spread

Arrays = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64] | None


UNKICKED = 1e-8  # radians: tokens that are equal in all images, as cls at layer 0, have no direction of another class


class Finding(NamedTuple):
    """One finding of the paper, and the number that would show it.

    Attributes
    ----------
    title
        The finding in the paper's sense.
    statistic
        What the number is.
    tokens
        Token type that it is about.
    threshold
        The finding shows where the statistic lies above it.
    of
        Gives the statistic of every image of a network ``(n,)``, or None where it cannot be had.
    digits
        To be shown.
    """

    title: str
    statistic: str
    tokens: str
    threshold: float
    of: Callable[[Arrays], Values]
    digits: int = 3


def curve(arrays: Arrays, measure: str, kind: str) -> Values:
    """``(n, layers)`` of a measure, None where it was not measured."""
    return arrays.get(f"curves/{measure}/{kind}")


def mean_and_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over the first axis and half width of its 95 % Student interval, for ``(n, m)``."""
    spreads = [Spread.of(column) for column in values.T]
    return np.array([s.mean for s in spreads]), np.array([s.ci95 for s in spreads])


def _s_curve(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        gamma = curve(arrays, "convergence", kind)
        if gamma is None:
            return None
        L = gamma.shape[1] - 1
        thirds = np.diff(gamma[:, [0, round(L / 3), round(2 * L / 3), L]], axis=1)
        return (thirds[:, 1] - np.maximum(thirds[:, 0], thirds[:, 2])) / np.maximum(1 - gamma[:, 0], 1e-9)

    return of


def _basin(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        right = arrays.get(f"basins/final/{kind}")
        return None if right is None else right[:, -1] - float(arrays["basins/chance"])

    return of


def _late_turn(arrays: Arrays) -> Values:
    cls, patches = curve(arrays, "speed", "cls"), curve(arrays, "speed", "patches")
    return None if cls is None or patches is None else np.degrees(cls[:, -1] - patches[:, -1])


def _registers_slow(arrays: Arrays) -> Values:
    registers, patches = curve(arrays, "speed", "registers"), curve(arrays, "speed", "patches")
    return None if registers is None or patches is None else np.degrees(patches.mean(1) - registers.mean(1))


def _jump(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        speed, boundaries = curve(arrays, "speed", kind), arrays["boundaries"]
        if speed is None or not len(boundaries):
            return None
        at = np.isin(np.arange(speed.shape[1]), boundaries)  # the step from layer b leaves the phase that ends there
        return np.degrees(speed[:, at].mean(1) - speed[:, ~at].mean(1))

    return of


def _correction(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        keys = [key for key in arrays if key.startswith("kicks/random/") and key.endswith(f"/{kind}")]
        if not keys:
            return None
        least = min(float(key.split("/")[3]) for key in keys)
        # mean over the kicked layers of the log ratio of the last angle to the first; above 0 they shrink
        angles = [arrays[key] for key in keys if float(key.split("/")[3]) == least]
        return -np.mean([np.log(np.maximum(a[:, -1], 1e-12) / a[:, 0]) for a in angles], axis=0)

    return of


def _rank_falls(arrays: Arrays) -> Values:
    rank = curve(arrays, "effective_rank", "patches")
    if rank is None:
        return None
    third = max(1, round(rank.shape[1] / 3))
    return rank[:, :third].mean(axis=1) - rank[:, -third:].mean(axis=1)


def _coherence_rises(arrays: Arrays) -> Values:
    values = curve(arrays, "coherence", "patches")
    return None if values is None else values[:, -1] - values[:, (values.shape[1] - 1) // 2]


FINDINGS = [
    *(
        Finding(
            "Directions converge to their end along an S-curve",
            "rise of gamma in the middle third of depth minus the larger of the other thirds', as a share of all",
            kind,
            0.0,
            _s_curve(kind),
        )
        for kind in ("cls", "patches")
    ),
    *(
        Finding(
            "Classes have angular basins",
            "held-out images whose last direction is nearest to that of their class, minus chance",
            kind,
            0.0,
            _basin(kind),
        )
        for kind in ("cls", "patches")
    ),
    Finding(
        "The class token turns sharply late",
        "last step of cls minus that of patches, degrees",
        "cls",
        0.0,
        _late_turn,
        1,
    ),
    Finding(
        "Registers are slower than patches",
        "mean step of patches minus that of registers, degrees",
        "registers",
        0.0,
        _registers_slow,
        1,
    ),
    *(
        Finding(
            "Speed jumps at phase boundaries",
            "mean step into a new phase minus mean of the others, degrees (cuts and steps come from the same layers)",
            kind,
            0.0,
            _jump(kind),
            1,
        )
        for kind in ("cls", "patches")
    ),
    *(
        Finding(
            "Small kicks correct themselves",
            "log of first over last angle after the smallest random kick, mean over kicked layers",
            kind,
            0.0,
            _correction(kind),
            2,
        )
        for kind in ("cls", "patches")
    ),
    Finding(
        "Updates fall to low rank",
        "effective rank of an image's patch updates, mean of the first third of steps minus that of the last",
        "patches",
        0.0,
        _rank_falls,
        1,
    ),
    Finding(
        "Patches become coherent late",
        "coherence at the last layer minus that at half depth",
        "patches",
        0.0,
        _coherence_rises,
    ),
]


def judge_findings(networks: Mapping[str, Arrays]) -> list[dict[str, Any]]:
    """Every finding with its statistic for each network, and a verdict on the first.

    Returns
    -------
    list of dict
        ``finding``, ``statistic``, ``tokens``, ``values`` by network (mean, ci95, n), and ``verdict``: *shows* or *does
        not show* where the 95 % interval over images lies on one side of 0, else *open*; *as without training* is added
        where the untrained network's interval lies above 0 too and overlaps or exceeds it.
    """
    rows = []
    for finding in FINDINGS:
        values = {name: finding.of(arrays) for name, arrays in networks.items()}
        spreads = {name: Spread.of(v.tolist()) for name, v in values.items() if v is not None}
        if not spreads:
            continue
        first = next(iter(networks))
        rows.append(
            {
                "finding": finding.title,
                "statistic": finding.statistic,
                "tokens": finding.tokens,
                "digits": finding.digits,
                "values": {name: {"mean": s.mean, "ci95": s.ci95, "n": s.n} for name, s in spreads.items()},
                "verdict": _verdict(spreads[first], spreads.get("untrained")),
            }
        )
    return rows


def _verdict(spread: Spread, untrained: Spread | None) -> str:
    low, high = spread.mean - spread.ci95, spread.mean + spread.ci95
    if high < 0:
        return "does not show"
    if not low > 0:
        return "open"
    if untrained is not None and untrained.mean + untrained.ci95 >= low and untrained.mean - untrained.ci95 > 0:
        return "shows, as without training"
    return "shows"


def findings_table(findings: list[dict[str, Any]]) -> pd.DataFrame:
    """Findings as a table, a row each and a column for each network."""
    networks = list(dict.fromkeys(name for row in findings for name in row["values"]))

    def cell(row: dict[str, Any], name: str) -> str:
        value = row["values"].get(name)
        return f"{value['mean']:.{row['digits']}f} ± {value['ci95']:.{row['digits']}f}" if value else "-"

    return pd.DataFrame(
        [
            {
                "finding": row["finding"],
                "tokens": row["tokens"],
                "statistic (above 0: it shows)": row["statistic"],
                **{name: cell(row, name) for name in networks},
                "verdict": row["verdict"],
            }
            for row in findings
        ]
    )


def rates(arrays: Arrays) -> list[dict[str, Any]]:
    """How kicks shrink or grow: factor for each layer of depth, with interval, for every kick."""
    import torch

    from raptor.analysis.perturbation import contraction_rate

    rows = []
    for key in sorted(arrays):
        if not key.startswith("kicks/") or arrays[key][:, 0].mean() < UNKICKED:
            continue
        _, way, layer, size, kind = key.split("/")
        spread = Spread.of(contraction_rate(torch.from_numpy(arrays[key])).tolist())
        rows.append(
            {"toward": way, "layer": int(layer), "size": float(size), "tokens": kind, "rate": spread.mean}
            | {"ci95": spread.ci95, "n": spread.n}
        )
    return sorted(rows, key=lambda row: (row["toward"], row["layer"], row["size"], row["tokens"]))


def summary(arrays: Arrays) -> dict[str, Any]:
    """All numbers of a network as plain data: curves as means with intervals, the rest as it is."""
    found: dict[str, Any] = {"rates": rates(arrays)}
    for key, values in arrays.items():
        if key.startswith(("curves/", "basins/own", "basins/final", "basins/pull", "hypothesis/", "kicks/")):
            mean, ci95 = mean_and_interval(values)
            found[key] = {"mean": mean.tolist(), "ci95": ci95.tolist(), "n": len(values)}
        elif key.startswith(("other_end/", "pooled/")) or key.endswith("_error") or key == "basins/chance":
            found[key] = values.tolist()
        elif key.startswith(("jacobian/", "operators/")):
            found[key] = np.abs(values).tolist() if np.iscomplexobj(values) else values.tolist()
    return found
