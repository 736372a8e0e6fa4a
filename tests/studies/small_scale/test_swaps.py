import numpy as np
import pytest

from raptor.errors import ConfigError, show
from raptor.studies.small_scale.swaps import SIDES, SIZES, Swap, draw_swap, draw_swaps

LABELS = {1: [0] * 8, 2: [0] * 3 + [1] * 5, 3: [0, 1, 1, 1, 2, 2, 2, 2]}


def test_swaps_are_of_the_side_and_size_that_they_say() -> None:
    found = draw_swaps(LABELS, draws=6, seed=0)
    assert len(found) == len(set(found)) == 2 * len(SIDES) * len(SIZES) * 6  # none of k = 1
    for swap in found:
        labels = LABELS[swap.k]
        assert len(swap.replaced) == len(set(swap.replaced)) == len(swap.by)
        for layer, other in zip(swap.replaced, swap.by, strict=True):
            assert layer != other and {layer, other} <= set(range(1, 9))
            assert (labels[layer - 1] == labels[other - 1]) == (swap.side == "intra")
        order = swap.order(8)
        assert [layer for layer in range(1, 9) if order[layer - 1] != layer] == list(swap.replaced)
    assert draw_swaps(LABELS, draws=6, seed=0) == found
    assert draw_swaps(LABELS, draws=6, seed=1) != found


def test_what_is_kept_of_a_swap_by_hand() -> None:
    D = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0))) ** 2
    about = Swap(2, "inter", (1, 4), (3, 5)).about(D)
    assert about["distance"] == pytest.approx((4 + 1) / 2)
    assert about["gap"] == pytest.approx((2 + 1) / 2)
    assert (about["size"], about["replaced"], about["by"]) == (2, [1, 4], [3, 5])


def test_no_more_swaps_than_there_are() -> None:
    assert draw_swap([0, 1, 2], 3, "intra", 1, np.random.default_rng(0)) is None  # phases of one layer
    assert draw_swap([0, 0, 1], 2, "intra", 3, np.random.default_rng(0)) is None
    found = draw_swaps({2: [0, 0, 1]}, draws=50, seed=0, sizes=[1])
    assert {s.replaced + s.by for s in found if s.side == "intra"} == {(1, 2), (2, 1)}
    assert {s.replaced + s.by for s in found if s.side == "inter"} == {(1, 3), (2, 3), (3, 1), (3, 2)}
    assert len(found) == 6


@pytest.mark.parametrize("draws", [-1, 1.5, True])
def test_mistakes(draws: object) -> None:
    with pytest.raises(ConfigError, match=rf"task\.swaps={show(draws)}: expected integer >= 0"):
        draw_swaps(LABELS, draws, seed=0)  # type: ignore[arg-type]
