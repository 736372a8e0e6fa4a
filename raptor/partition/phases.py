"""Boundaries and phases: how depth 1..L is cut into contiguous phases.

Boundaries are the last layers of all phases but the last: for L = 12, ``[7, 10]`` means the phases 1..7, 8..10
and 11..12. A phase is written ``(start, end)``: it starts from layer ``start`` and produces ``start+1..end``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from raptor.errors import ConfigError


class Phase(NamedTuple):
    """A contiguous run of layers that one block produces.

    Attributes
    ----------
    start
        Layer whose tokens enter the phase (0 is the embedding).
    end
        Last layer that the phase produces.
    """

    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


def check_order(boundaries: Sequence[int], key: str = "surrogate.boundaries") -> None:
    """Refuse boundaries that cut no network, whatever its depth.

    Raises
    ------
    ConfigError
        If they are not strictly increasing from 1 on.
    """
    if any(later <= earlier for earlier, later in pairwise([0, *boundaries])):
        expected = "strictly increasing integers >= 1, none out of order"
        raise ConfigError.of(key, list(boundaries), expected, "give such layers, [6] for instance")


def check_boundaries(boundaries: Sequence[int], num_layers: int, key: str = "surrogate.boundaries") -> list[int]:
    """Check boundaries, and return them as a plain list.

    Raises
    ------
    ConfigError
        If they are not integers, not strictly increasing, or outside 1..L-1.
    """
    values = list(boundaries)
    remedy = f"give such layers, [{max(1, num_layers // 2)}] for instance"
    expected = f"strictly increasing integers within 1..{num_layers - 1} of {num_layers} layers"
    if any(isinstance(b, bool) or not isinstance(b, int) for b in values):
        raise ConfigError.of(key, values, f"{expected} (some are no integers)", remedy)
    if any(later <= earlier for earlier, later in pairwise(values)):
        raise ConfigError.of(key, values, f"{expected} (they are out of order)", remedy)
    if values and not (values[0] >= 1 and values[-1] < num_layers):
        raise ConfigError.of(key, values, f"{expected} (some lie outside)", remedy)
    return values


def check_k(k: int, num_layers: int, key: str = "surrogate.k") -> int:
    """Check a number of phases, and return it.

    Raises
    ------
    ConfigError
        If it is no integer from 1 to L.
    """
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= num_layers:
        raise ConfigError.of(key, k, f"an integer from 1 to {num_layers}, the number of layers", "choose one")
    return k


def phases_of(boundaries: Sequence[int], num_layers: int) -> list[Phase]:
    """Return the phases that boundaries make, in order of depth."""
    edges = [0, *check_boundaries(boundaries, num_layers), num_layers]
    return [Phase(a, b) for a, b in pairwise(edges)]


def boundaries_of(phases: Sequence[Phase]) -> list[int]:
    """Return the boundaries of phases that follow each other from layer 0.

    Raises
    ------
    ConfigError
        If the phases leave a gap or overlap.
    """
    if not phases or phases[0].start != 0 or any(a.end != b.start for a, b in pairwise(phases)):
        expected = "phases that cover depth from layer 0 on without gap or overlap"
        raise ConfigError.of("phases", [str(p) for p in phases], expected, "correct them")
    return [p.end for p in phases[:-1]]


def label_layers(boundaries: Sequence[int], num_layers: int) -> list[int]:
    """Phase number, from 0, of each of the layers 1..L."""
    return [j for j, phase in enumerate(phases_of(boundaries, num_layers)) for _ in range(phase.start, phase.end)]
