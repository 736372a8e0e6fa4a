"""Draw the kinds of partition that the small-scale study compares, as labels of layers.

Labels are the number, from 0, of the block that produces each of the layers 1..L. Those of a contiguous partition
never come back to an earlier block; others may.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from raptor.errors import ConfigError
from raptor.partition.maxcut import Matrix, equal_boundaries, exact, other_boundaries
from raptor.partition.phases import check_k, label_layers
from raptor.utils.seeding import derive_seed

KINDS = ("maxcut", "equal", "random", "shuffled")
SINGLE = ("maxcut", "equal")  # kinds of which there is one partition


class Partition(NamedTuple):
    """One way to hand L layers to k blocks.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    k
        Number of blocks.
    draw
        Number of the draw; max-cut and equal sizes have one, 0.
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
        return f"k{self.k}-{self.kind}" + ("" if self.kind in SINGLE else str(self.draw))


def is_contiguous(labels: Sequence[int]) -> bool:
    """Whether no block comes back after another one."""
    return sum(a != b for a, b in pairwise(labels)) == len(set(labels)) - 1


def shuffle_labels(labels: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Permute labels over layers until they are not contiguous: blocks keep their numbers of layers.

    Raises
    ------
    ConfigError
        If every order is contiguous: one block, or one layer for each block.
    """
    k = len(set(labels))
    if k == 1 or k == len(labels):
        expected = f"k above 1 and below {len(labels)}, where layers have an order that is not contiguous"
        raise ConfigError.of("task.ks", k, expected, f"remove {k}, or shuffled from task.kinds")
    while True:
        drawn = [int(label) for label in rng.permutation(labels)]
        if not is_contiguous(drawn):
            return drawn


def partitions(distance: Matrix, ks: Sequence[int], kinds: Sequence[str], draws: int, seed: int) -> list[Partition]:
    """Draw partitions of every k and kind; the same seed gives the same ones, whatever the other k and kinds.

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
            for draw in range(1 if kind in SINGLE else draws):
                rng = np.random.default_rng(derive_seed(seed, "partition", kind, k, draw))
                drawn = labels
                if kind == "equal":
                    drawn = label_layers(equal_boundaries(L, k), L)
                elif kind == "random":
                    drawn = label_layers(other_boundaries(best, L, rng), L)
                elif kind == "shuffled":
                    drawn = shuffle_labels(labels, rng)
                found.append(Partition(kind, k, draw, tuple(drawn)))
    return found


def check_partitions(ks: Sequence[int], kinds: Sequence[str], draws: int, num_layers: int) -> None:
    """Check that :func:`partitions` can be drawn, before a distance is measured.

    Raises
    ------
    ConfigError
        If a number or a kind does not fit.
    """
    for key, values in (("ks", ks), ("kinds", kinds)):
        if isinstance(values, str | int) or not values or len(set(values)) != len(values):
            raise ConfigError.of(f"task.{key}", values, "a list without repetition", "write [2,3] or [maxcut]")
    if [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError.of("task.kinds", list(kinds), f"kinds among {', '.join(KINDS)}", "correct the others")
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ConfigError.of("task.draws", draws, "integer >= 1", "set it to 1 or more")
    for k in ks:
        check_k(k, num_layers, "task.ks")
