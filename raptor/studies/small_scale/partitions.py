"""Kinds of partition that the small-scale study compares, as labels of layers.

Labels are the number, from 0, of the block that produces each of the layers 1..L. Those of a contiguous partition
never come back to an earlier block; others may.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from raptor.errors import ConfigError
from raptor.partition.maxcut import Matrix, exact, random_boundaries
from raptor.partition.phases import check_k, label_layers
from raptor.utils.seeding import derive_seed

KINDS = ("maxcut", "random", "shuffled")


class Partition(NamedTuple):
    """One way to hand L layers to k blocks.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    k
        Number of blocks.
    draw
        Number of the draw; the max-cut partition has one, 0.
    labels
        Block of each of the layers 1..L, from 0.
    """

    kind: str
    k: int
    draw: int
    labels: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as ``k2-maxcut``, ``k2-random0``; ``k1`` for the only partition into one."""
        if self.k == 1:
            return "k1"
        return f"k{self.k}-{self.kind}" + ("" if self.kind == "maxcut" else str(self.draw))


def is_contiguous(labels: Sequence[int]) -> bool:
    """Whether no block comes back after another one."""
    return sum(a != b for a, b in pairwise(labels)) == len(set(labels)) - 1


def shuffle_labels(labels: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Labels permuted over layers until they are not contiguous: blocks keep their numbers of layers.

    Raises
    ------
    ConfigError
        If every order is contiguous: one block, or one layer for each block.
    """
    k = len(set(labels))
    if k == 1 or k == len(labels):
        raise ConfigError(
            f"task.ks: {len(labels)} layers in k={k} phases have no order that is not contiguous; leave k={k} or "
            "task.kinds=shuffled out"
        )
    while True:
        drawn = [int(label) for label in rng.permutation(labels)]
        if not is_contiguous(drawn):
            return drawn


def other_boundaries(boundaries: Sequence[int], num_layers: int, rng: np.random.Generator) -> list[int]:
    """A random contiguous partition into as many phases that is not this one, where there is another."""
    k = len(boundaries) + 1
    while True:
        drawn = random_boundaries(num_layers, k, rng)
        if drawn != list(boundaries) or k in (1, num_layers):
            return drawn


def partitions(distance: Matrix, ks: Sequence[int], kinds: Sequence[str], draws: int, seed: int) -> list[Partition]:
    """Partitions of every asked k and kind; the same seed gives the same ones, whatever else is asked for.

    Parameters
    ----------
    distance
        ``(L, L)``, symmetric, zero diagonal: what the max-cut is cut from, and the shuffled labels with it.
    ks
        Numbers of blocks. There is one partition into one block, and it counts as max-cut.
    kinds
        Among :data:`KINDS`.
    draws
        Random and shuffled partitions of each k.
    seed
        Of the draws.

    Returns
    -------
    list of Partition
        In order of k, kind and draw.

    Raises
    ------
    ConfigError
        If a number or a kind does not fit.
    """
    L, found = len(distance), []
    check_partitions(ks, kinds, draws, L)
    for k in ks:
        best = exact(distance, k)
        labels = label_layers(best, L)
        if k == 1:
            found.append(Partition("maxcut", 1, 0, tuple(labels)))
            continue
        for kind in kinds:
            for draw in range(1 if kind == "maxcut" else draws):
                rng = np.random.default_rng(derive_seed(seed, "partition", kind, k, draw))
                drawn = labels
                if kind == "random":
                    drawn = label_layers(other_boundaries(best, L, rng), L)
                elif kind == "shuffled":
                    drawn = shuffle_labels(labels, rng)
                found.append(Partition(kind, k, draw, tuple(drawn)))
    return found


def check_partitions(ks: Sequence[int], kinds: Sequence[str], draws: int, num_layers: int) -> None:
    """See that :func:`partitions` can be drawn, before a distance is measured.

    Raises
    ------
    ConfigError
        If a number or a kind does not fit.
    """
    for key, values in (("ks", ks), ("kinds", kinds)):
        if isinstance(values, str | int) or not values or len(set(values)) != len(values):
            raise ConfigError(f"task.{key}={values} must be a list without repetition, such as [2,3] or [maxcut]")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"task.kinds={list(kinds)}: {unknown[0]!r} is unknown; choose among {', '.join(KINDS)}")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ConfigError(f"task.draws={draws} must be a whole number from 1 on")
    for k in ks:
        check_k(k, num_layers, "task.ks")
