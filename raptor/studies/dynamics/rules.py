"""Turn each finding of the paper into one number for each image, above 0 where the finding shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raptor.analysis.jumps import permutation_test, speed_jump

Arrays = Mapping[str, NDArray[Any]]
Values = NDArray[np.float64] | None
Rule = Callable[[Arrays], Values]
UNMOVED = 1e-8  # radians: tokens that are equal in all images, as cls at layer 0, have no direction of another class
SMALLEST = 1e-12  # radians, or a rise of gamma: below, a logarithm or a share says nothing


def curve(arrays: Arrays, measure: str, kind: str) -> Values:
    """Return a measure by layer, ``(n, layers)``, None where it was not measured."""
    return arrays.get(f"curves/{measure}/{kind}")


def rise_share(kind: str, third: int) -> Rule:
    """Make the rule: a third, less the share of gamma's rise that falls in that third of depth (0, 1 or 2).

    An S-curve is above 0 for the first third and for the last. A straight line is at 0.
    """

    def rule(arrays: Arrays) -> Values:
        gamma = curve(arrays, "convergence", kind)
        if gamma is None:
            return None
        L = gamma.shape[1] - 1
        at = np.linspace(0, L, 4)[third : third + 2]  # between layers where L is no multiple of three
        rise = np.diff([np.interp(at, np.arange(L + 1), g) for g in gamma], axis=1)[:, 0]
        return 1 / 3 - rise / np.maximum(1 - gamma[:, 0], SMALLEST)

    return rule


def basin(kind: str, depth: float) -> Rule:
    """Make the rule: 1 where an image at a share of depth is nearest to its class's final direction, less chance."""

    def rule(arrays: Arrays) -> Values:
        right = arrays.get(f"basins/final/{kind}")
        if right is None:
            return None
        return right[:, round(depth * (right.shape[1] - 1))] - float(arrays["basins/chance"])

    return rule


def late_turn(arrays: Arrays) -> Values:
    """Subtract the mean step of cls from its last one, and the same of patches from that, in degrees."""
    cls, patches = curve(arrays, "speed", "cls"), curve(arrays, "speed", "patches")
    if cls is None or patches is None:
        return None
    late = [speed[:, -1] - speed[:, :-1].mean(axis=1) for speed in (cls, patches)]
    return np.degrees(late[0] - late[1])


def slow_registers(arrays: Arrays) -> Values:
    """Subtract the mean step of registers from that of patches, in degrees."""
    registers, patches = curve(arrays, "speed", "registers"), curve(arrays, "speed", "patches")
    return None if registers is None or patches is None else np.degrees(patches.mean(1) - registers.mean(1))


def jump(kind: str) -> Rule:
    """Make the rule: mean step into a new phase less the mean of the others, in degrees."""

    def rule(arrays: Arrays) -> Values:
        speed = curve(arrays, "speed", kind)
        found = None if speed is None else speed_jump(speed, arrays["boundaries"].tolist())
        return None if found is None else np.degrees(found)

    return rule


def jump_p(kind: str) -> Callable[[Arrays], float]:
    """Make the permutation test of :func:`jump` among contiguous partitions."""
    return lambda arrays: permutation_test(arrays[f"curves/speed/{kind}"], arrays["boundaries"].tolist())


def smallest_perturbations(arrays: Arrays, way: str, kind: str) -> list[str]:
    """List the arrays of the smallest perturbations that turn tokens of a type at all, one for each layer."""
    keys = [key for key in arrays if key.startswith(f"perturbed/{way}/") and key.endswith(f"/{kind}")]
    keys = [key for key in keys if (arrays[key][:, 0] > UNMOVED).any()]
    least = min((float(key.split("/")[3]) for key in keys), default=0.0)
    return [key for key in keys if float(key.split("/")[3]) == least]


def shrinking(way: str, kind: str) -> Rule:
    """Make the rule: log of the first angle over the last, mean over perturbed layers."""
    return _log_ratio(way, kind, lambda arrays, key: arrays[key][:, 0])


def correction(way: str, kind: str) -> Rule:
    """Make the rule: log of the last angle under a constant offset over the last angle, mean over perturbed layers."""
    return _log_ratio(way, kind, lambda arrays, key: arrays[key.replace("perturbed/", "constant_offset/")][:, -1])


def _log_ratio(way: str, kind: str, reference: Callable[[Arrays, str], NDArray[np.float64]]) -> Rule:
    def rule(arrays: Arrays) -> Values:
        keys = smallest_perturbations(arrays, way, kind)
        if not keys:
            return None
        moved = np.all([arrays[key][:, 0] > UNMOVED for key in keys], axis=0)
        pairs = [(reference(arrays, key)[moved], arrays[key][moved, -1]) for key in keys]
        return np.mean([np.log(np.maximum(a, SMALLEST) / np.maximum(b, SMALLEST)) for a, b in pairs], axis=0)

    return rule


def falling_rank(arrays: Arrays) -> Values:
    """Subtract the effective rank of an image's patch updates in the last third of steps from that in the first."""
    rank = curve(arrays, "effective_rank", "patches")
    if rank is None:
        return None
    third = max(1, round(rank.shape[1] / 3))
    return rank[:, :third].mean(axis=1) - rank[:, -third:].mean(axis=1)


def late_coherence(arrays: Arrays) -> Values:
    """Subtract the rise of patch coherence in the first half of depth from that in the second."""
    values = curve(arrays, "coherence", "patches")
    if values is None:
        return None
    half = (values.shape[1] - 1) // 2
    return (values[:, -1] - values[:, half]) - (values[:, half] - values[:, 0])
