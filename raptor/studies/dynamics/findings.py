"""Decide what measured dynamics say about each finding of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raptor.partition.maxcut import exact
from raptor.reporting.statistics import MeanCI
from raptor.studies.dynamics import rules
from raptor.studies.dynamics.rules import Arrays, Rule, Values

LEVEL = 0.05
ROUNDING = 1e-9  # of a statistic that counts as 0
SHOWS, SHOWS_NOT, OPEN = "shows", "does not show", "open"


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
    rule
        Gives the statistic of every image of a network ``(n,)``, or None where it cannot be had.
    digits
        To be shown.
    p_value
        For a finding about phases, the permutation test among other partitions.
    """

    title: str
    statistic: str
    tokens: str
    rule: Rule
    digits: int = 3
    p_value: Callable[[Arrays], float] | None = None


BOTH = ("cls", "patches")
THIRDS = {0: ("starts slowly: first bend of an S-curve", "first"), 2: ("levels off: second bend of an S-curve", "last")}
BASINS = {
    "Classes have angular basins at the end": ("there", 1.0),
    "Images are in the basin of their class before the end": ("three quarters of the way", 0.75),
}
WAYS = {"random": ("Small perturbations", "random"), "class": ("Small perturbations toward another class", "such")}

FINDINGS = [
    *(
        Finding(
            f"Convergence {title}",
            f"a third, less the share of gamma's rise that falls in the {name} third of depth",
            kind,
            rules.rise_share(kind, third),
        )
        for third, (title, name) in THIRDS.items()
        for kind in BOTH
    ),
    *(
        Finding(
            title,
            f"held-out images whose direction {at} is nearest to that of their class at the last layer, less chance or "
            "the largest class",
            kind,
            rules.basin(kind, depth),
        )
        for title, (at, depth) in BASINS.items()
        for kind in BOTH
    ),
    Finding(
        "The class token turns sharply late",
        "last step of cls minus its mean step before, less the same of patches, degrees",
        "cls",
        rules.late_turn,
        1,
    ),
    Finding(
        "Registers are slower than patches",
        "mean step of patches minus that of registers, degrees",
        "registers",
        rules.slow_registers,
        1,
    ),
    *(
        Finding(
            "Speed jumps at phase boundaries",
            "mean step into a new phase minus mean of the others from layer 1 on, degrees (cuts are made from steps)",
            kind,
            rules.jump(kind),
            1,
            rules.jump_p(kind),
        )
        for kind in BOTH
    ),
    *(
        Finding(
            f"{what} {does}",
            f"smallest {perturbation} perturbation: log of {reference} over its last angle, mean over layers",
            kind,
            make(way, kind),
            2,
        )
        for way, (what, perturbation) in WAYS.items()
        for does, reference, make in (
            ("shrink (the paper's statement)", "its first angle", rules.shrinking),
            ("are corrected (stricter)", "the last angle under a constant offset", rules.correction),
        )
        for kind in BOTH
    ),
    Finding(
        "The rank of updates falls",
        "effective rank of an image's patch updates, mean of the first third of steps minus that of the last",
        "patches",
        rules.falling_rank,
        1,
    ),
    Finding(
        "Patches become coherent late",
        "rise of coherence in the second half of depth minus that in the first",
        "patches",
        rules.late_coherence,
    ),
]


def with_own_cut(name: str, arrays: Arrays) -> Arrays:
    """Return the arrays with an untrained network's phases cut from its own distance; of other networks as they are."""
    if name != "untrained" or "distance" not in arrays:
        return arrays
    return {**arrays, "boundaries": np.array(exact(arrays["distance"], len(arrays["boundaries"]) + 1))}


def evaluate_findings(networks: Mapping[str, Arrays], *, given: bool = False) -> list[dict[str, Any]]:
    """Compute every finding's statistic for each network, and a verdict on the first.

    Parameters
    ----------
    networks
        Arrays by network.
    given
        Whether the phases were given. Those that were cut from the first network favour it; so the untrained network
        is then evaluated by a cut of its own.

    Returns
    -------
    list of dict
        ``finding``, ``statistic``, ``tokens``, ``values`` by network (mean, ci95, n), and ``verdict``: *shows* or *does
        not show* where the 95 % interval over images lies on one side of 0, else *open*; *as without training* is added
        where the paired difference to the untrained network does not lie above 0. A finding about phases is *open* too
        where the permutation test among other partitions gives p above 0.05.
    """
    rows = []
    for finding in FINDINGS:
        values = {}
        for name, arrays in networks.items():
            if (found := finding.rule(arrays if given else with_own_cut(name, arrays))) is not None:
                values[name] = found
        if not values:
            continue
        intervals = {name: MeanCI.of(v.tolist()) for name, v in values.items()}
        name = next(iter(networks))
        first, control = values.get(name), values.get("untrained")
        p = finding.p_value(networks[name]) if finding.p_value and first is not None else None
        rows.append(
            {
                "finding": finding.title,
                "statistic": finding.statistic,
                "tokens": finding.tokens,
                "digits": finding.digits,
                "values": {name: {"mean": s.mean, "ci95": s.ci95, "n": s.n} for name, s in intervals.items()},
                "p": p,
                "verdict": "not measured" if first is None else _verdict(first, control, p),
            }
        )
    return rows


def _verdict(first: NDArray[np.float64], control: Values, p: float | None) -> str:
    if _low(-first) > ROUNDING:
        return SHOWS_NOT
    if not _low(first) > ROUNDING:
        return OPEN
    if p is not None and p > LEVEL:
        return f"{OPEN} (p = {p:.2f} among other partitions)"
    if control is None or len(control) != len(first) or _low(first - control) > ROUNDING:
        return SHOWS
    return f"{SHOWS}, as without training"


def _low(values: NDArray[np.float64]) -> float:
    interval = MeanCI.of(values.tolist())
    return interval.mean - interval.ci95
