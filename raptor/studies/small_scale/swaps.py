"""Which layers of a teacher to replace by which others: the draws of the layer-swap intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from raptor.errors import ConfigError
from raptor.partition.maxcut import Matrix
from raptor.utils.seeding import derive_seed

SIDES = ("intra", "inter")
SIZES = (1, 2, 3)


class Swap(NamedTuple):
    """Layers of a teacher, some of them replaced by others.

    Attributes
    ----------
    k
        Number of phases of the partition that says what belongs together.
    side
        ``intra``: by layers of the same phase; ``inter``: by layers of other phases.
    replaced
        Layers 1..L whose block is taken away, in order.
    by
        Layers whose blocks stand there instead.
    """

    k: int
    side: str
    replaced: tuple[int, ...]
    by: tuple[int, ...]

    def order(self, num_layers: int) -> list[int]:
        """Layer whose block runs at each of the depths 1..L."""
        there = dict(zip(self.replaced, self.by, strict=True))
        return [there.get(layer, layer) for layer in range(1, num_layers + 1)]

    def about(self, distance: Matrix) -> dict[str, Any]:
        """Plain data: what was drawn, with the means of distance and of depth between replaced and replacing layers."""
        pairs = list(zip(self.replaced, self.by, strict=True))
        return {
            "k": self.k,
            "side": self.side,
            "size": len(pairs),
            "replaced": list(self.replaced),
            "by": list(self.by),
            "distance": float(np.mean([distance[a - 1, b - 1] for a, b in pairs])),
            "gap": float(np.mean([abs(a - b) for a, b in pairs])),
        }


def draw_swap(labels: Sequence[int], k: int, side: str, size: int, rng: np.random.Generator) -> Swap | None:
    """One swap: layers drawn among those that can be replaced, each by one drawn among those that may replace it.

    Parameters
    ----------
    labels
        Phase of each of the layers 1..L.
    k
        Number of phases, to keep with the draw.
    side
        ``intra`` or ``inter``.
    size
        Layers to replace.
    rng
        Source of the draw.

    Returns
    -------
    Swap or None
        None where too few layers can be replaced.
    """
    L = len(labels)
    others = {
        layer: [
            other
            for other in range(1, L + 1)
            if other != layer and (labels[layer - 1] == labels[other - 1]) == (side == "intra")
        ]
        for layer in range(1, L + 1)
    }
    eligible = [layer for layer, choice in others.items() if choice]
    if len(eligible) < size:
        return None
    replaced = tuple(sorted(int(layer) for layer in rng.choice(eligible, size=size, replace=False)))
    return Swap(k, side, replaced, tuple(int(rng.choice(others[layer])) for layer in replaced))


def draw_swaps(
    labels_by_k: Mapping[int, Sequence[int]], draws: int, seed: int, sizes: Sequence[int] = SIZES
) -> list[Swap]:
    """Distinct swaps for every partition, side and size, as many as there are but no more than ``draws``.

    Parameters
    ----------
    labels_by_k
        Phase of each of the layers 1..L, for each number of phases; those of one phase are passed over.
    draws
        Swaps of each k, side and size.
    seed
        Of the draws.
    sizes
        Numbers of layers to replace.

    Raises
    ------
    ConfigError
        If ``draws`` is no integer >= 0.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
        raise ConfigError.of("task.swaps", draws, "integer >= 0 (0 = no intervention)", "correct it")
    swaps = []
    for k, labels in labels_by_k.items():
        if k == 1:
            continue
        for side in SIDES:
            for size in sizes:
                rng = np.random.default_rng(derive_seed(seed, "swap", k, side, size))
                # some draws come twice; a partition with few possible swaps must not keep us here for ever
                drawn = (draw_swap(labels, k, side, size, rng) for _ in range(20 * draws))
                swaps += list(dict.fromkeys(swap for swap in drawn if swap is not None))[:draws]
    return swaps
