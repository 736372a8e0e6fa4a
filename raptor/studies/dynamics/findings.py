"""What measured dynamics say about each finding of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raptor.analysis.jumps import rivals, speed_jump
from raptor.partition.maxcut import exact
from raptor.reporting.statistics import MeanCI

Arrays = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64] | None
RIVALS = 0.05
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
    of
        Gives the statistic of every image of a network ``(n,)``, or None where it cannot be had.
    digits
        To be shown.
    rivals
        For a finding about phases, how many other partitions do as well, and how many there are.
    """

    title: str
    statistic: str
    tokens: str
    of: Callable[[Arrays], Values]
    digits: int = 3
    rivals: Callable[[Arrays], tuple[int, int]] | None = None


def curve(arrays: Arrays, measure: str, kind: str) -> Values:
    """``(n, layers)`` of a measure, None where it was not measured."""
    return arrays.get(f"curves/{measure}/{kind}")


def _s_curve(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        gamma = curve(arrays, "convergence", kind)
        if gamma is None:
            return None
        L = gamma.shape[1] - 1
        at = np.linspace(0, L, 4)  # between layers where L is no multiple of three
        thirds = np.diff([np.interp(at, np.arange(L + 1), g) for g in gamma], axis=1)
        thirds /= np.maximum(1 - gamma[:, :1], 1e-9)
        rival = 2 * int(thirds[:, 2].mean() > thirds[:, 0].mean())  # of all images: the larger of two noises is no rise
        return thirds[:, 1] - thirds[:, rival]

    return of


def _basin(kind: str, depth: float) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        right = arrays.get(f"basins/final/{kind}")
        if right is None:
            return None
        return right[:, round(depth * (right.shape[1] - 1))] - float(arrays["basins/chance"])

    return of


def _late_turn(arrays: Arrays) -> Values:
    cls, patches = curve(arrays, "speed", "cls"), curve(arrays, "speed", "patches")
    if cls is None or patches is None:
        return None
    late = [speed[:, -1] - speed[:, :-1].mean(axis=1) for speed in (cls, patches)]
    return np.degrees(late[0] - late[1])


def _registers_slow(arrays: Arrays) -> Values:
    registers, patches = curve(arrays, "speed", "registers"), curve(arrays, "speed", "patches")
    return None if registers is None or patches is None else np.degrees(patches.mean(1) - registers.mean(1))


def _jump(kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        speed = curve(arrays, "speed", kind)
        jump = None if speed is None else speed_jump(speed, arrays["boundaries"].tolist())
        return None if jump is None else np.degrees(jump)

    return of


def _jump_rivals(kind: str) -> Callable[[Arrays], tuple[int, int]]:
    return lambda arrays: rivals(arrays[f"curves/speed/{kind}"], arrays["boundaries"].tolist())


def _correction(way: str, kind: str) -> Callable[[Arrays], Values]:
    def of(arrays: Arrays) -> Values:
        keys = [key for key in arrays if key.startswith(f"kicks/{way}/") and key.endswith(f"/{kind}")]
        keys = [key for key in keys if (arrays[key][:, 0] > UNKICKED).any()]
        if not keys:
            return None
        least = min(float(key.split("/")[3]) for key in keys)
        kicked = [key for key in keys if float(key.split("/")[3]) == least]
        moved = np.all([arrays[key][:, 0] > UNKICKED for key in kicked], axis=0)
        ends = [[arrays[name][moved, -1] for name in (key.replace("kicks/", "carried/"), key)] for key in kicked]
        return np.mean(
            [np.log(np.maximum(unchanged, 1e-12) / np.maximum(end, 1e-12)) for unchanged, end in ends], axis=0
        )

    return of


def _rank_falls(arrays: Arrays) -> Values:
    rank = curve(arrays, "effective_rank", "patches")
    if rank is None:
        return None
    third = max(1, round(rank.shape[1] / 3))
    return rank[:, :third].mean(axis=1) - rank[:, -third:].mean(axis=1)


def _coherence_rises(arrays: Arrays) -> Values:
    values = curve(arrays, "coherence", "patches")
    if values is None:
        return None
    half = (values.shape[1] - 1) // 2
    return (values[:, -1] - values[:, half]) - (values[:, half] - values[:, 0])


FINDINGS = [
    *(
        Finding(
            "Directions converge to their end along an S-curve",
            "rise of gamma in the middle third of depth minus that in the other third where it rises more on average, "
            "as a share of all",
            kind,
            _s_curve(kind),
        )
        for kind in ("cls", "patches")
    ),
    *(
        Finding(
            title,
            f"held-out images whose direction {at} is nearest to that of their class at the last layer, less chance or "
            "the largest class",
            kind,
            _basin(kind, depth),
        )
        for title, at, depth in (
            ("Classes have angular basins at the end", "there", 1.0),
            ("Images are in the basin of their class before the end", "three quarters of the way", 0.75),
        )
        for kind in ("cls", "patches")
    ),
    Finding(
        "The class token turns sharply late",
        "last step of cls minus its mean step before, less the same of patches, degrees",
        "cls",
        _late_turn,
        1,
    ),
    Finding(
        "Registers are slower than patches",
        "mean step of patches minus that of registers, degrees",
        "registers",
        _registers_slow,
        1,
    ),
    *(
        Finding(
            "Speed jumps at phase boundaries",
            "mean step into a new phase minus mean of the others from layer 1 on, degrees (cuts are made from steps)",
            kind,
            _jump(kind),
            1,
            _jump_rivals(kind),
        )
        for kind in ("cls", "patches")
    ),
    *(
        Finding(
            f"Small kicks {where}correct themselves",
            f"smallest {kick}: log of its last angle if carried along unchanged over that angle, mean over layers",
            kind,
            _correction(way, kind),
            2,
        )
        for way, where, kick in (
            ("random", "", "random kick"),
            ("class", "toward another class ", "kick toward another class"),
        )
        for kind in ("cls", "patches")
    ),
    Finding(
        "The rank of updates falls",
        "effective rank of an image's patch updates, mean of the first third of steps minus that of the last",
        "patches",
        _rank_falls,
        1,
    ),
    Finding(
        "Patches become coherent late",
        "rise of coherence in the second half of depth minus that in the first",
        "patches",
        _coherence_rises,
    ),
]


def with_own_cut(name: str, arrays: Arrays) -> Arrays:
    """Arrays with an untrained network's phases cut from its own distance; other networks as they are."""
    if name != "untrained" or "distance" not in arrays:
        return arrays
    return {**arrays, "boundaries": np.array(exact(arrays["distance"], len(arrays["boundaries"]) + 1))}


def judge_findings(networks: Mapping[str, Arrays], given: bool = False) -> list[dict[str, Any]]:
    """Every finding with its statistic for each network, and a verdict on the first.

    Parameters
    ----------
    networks
        Arrays by network.
    given
        Whether the phases were given. Those that were cut from the first network favour it; so the untrained network is
        then judged by a cut of its own.

    Returns
    -------
    list of dict
        ``finding``, ``statistic``, ``tokens``, ``values`` by network (mean, ci95, n), and ``verdict``: *shows* or *does
        not show* where the 95 % interval over images lies on one side of 0, else *open*; *as without training* is added
        where the paired difference to the untrained network does not lie above 0. A finding about phases is *open* too
        where more than 5 % of the other partitions do as well.
    """
    rows = []
    for finding in FINDINGS:
        values = {}
        for name, arrays in networks.items():
            if (found := finding.of(arrays if given else with_own_cut(name, arrays))) is not None:
                values[name] = found
        if not values:
            continue
        spreads = {name: MeanCI.of(v.tolist()) for name, v in values.items()}
        name = next(iter(networks))
        first, control = values.get(name), values.get("untrained")
        as_good = finding.rivals(networks[name]) if finding.rivals and first is not None else (0, 0)
        rows.append(
            {
                "finding": finding.title,
                "statistic": finding.statistic,
                "tokens": finding.tokens,
                "digits": finding.digits,
                "values": {name: {"mean": s.mean, "ci95": s.ci95, "n": s.n} for name, s in spreads.items()},
                "verdict": "not measured" if first is None else _verdict(first, control, as_good),
            }
        )
    return rows


def _verdict(first: NDArray[np.float64], control: Values, as_good: tuple[int, int]) -> str:
    if _low(-first) > 0:
        return "does not show"
    if not _low(first) > 0:
        return "open"
    if as_good[0] > RIVALS * as_good[1]:
        return f"open ({as_good[0]} of {as_good[1]} other partitions do as well)"
    if control is None or len(control) != len(first) or _low(first - control) > 0:
        return "shows"
    return "shows, as without training"


def _low(values: NDArray[np.float64]) -> float:
    spread = MeanCI.of(values.tolist())
    return spread.mean - spread.ci95
