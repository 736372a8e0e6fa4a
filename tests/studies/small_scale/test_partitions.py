from collections import Counter

import numpy as np
import pytest

from raptor.errors import ConfigError
from raptor.partition.maxcut import exact
from raptor.partition.phases import label_layers
from raptor.partition.quality import mean_adjacent, quality, quality_of_labels
from raptor.studies.small_scale.partitions import (
    KINDS,
    Partition,
    is_contiguous,
    other_boundaries,
    partitions,
    shuffle_labels,
)


@pytest.fixture
def distance() -> np.ndarray:
    rng = np.random.default_rng(0)
    steps = rng.uniform(0.1, 1.0, size=12).cumsum()
    return np.abs(steps[:, None] - steps[None, :])


def test_contiguity_by_hand() -> None:
    assert is_contiguous([0, 0, 1, 2]) and is_contiguous([2, 2, 0]) and is_contiguous([0])
    assert not is_contiguous([0, 1, 0]) and not is_contiguous([0, 0, 1, 2, 1])


@pytest.mark.parametrize("labels", [[0, 0, 1], [0] * 5 + [1] * 7, [0, 0, 0, 1, 1, 2]])
def test_shuffled_labels_keep_sizes_and_lose_contiguity(labels: list[int]) -> None:
    rng = np.random.default_rng(1)
    drawn = [shuffle_labels(labels, rng) for _ in range(50)]
    assert all(Counter(of) == Counter(labels) for of in drawn)
    assert not any(is_contiguous(of) for of in drawn)
    assert len(labels) == 3 or len({tuple(of) for of in drawn}) > 5


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_what_cannot_be_shuffled(labels: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"task\.ks=\d: expected k above 1 and below 3"):
        shuffle_labels(labels, np.random.default_rng(0))


def test_another_partition_is_another_one() -> None:
    rng = np.random.default_rng(2)
    drawn = [tuple(other_boundaries([1], 3, rng)) for _ in range(20)]
    assert set(drawn) == {(2,)}
    assert other_boundaries([1, 2], 3, rng) == [1, 2]  # there is no other


def test_all_kinds_of_all_ks(distance: np.ndarray) -> None:
    found = partitions(distance, [1, 2, 3], KINDS, draws=2, seed=7)
    names = ["maxcut", "equal", "random0", "random1", "shuffled0", "shuffled1"]
    assert [p.name for p in found] == ["k1", *(f"k{k}-{name}" for k in (2, 3) for name in names)]
    for p in found:
        assert set(p.labels) == set(range(p.k)) and len(p.labels) == 12
        assert is_contiguous(p.labels) == (p.kind != "shuffled")
        best = label_layers(exact(distance, p.k), 12)
        if p.kind != "equal":  # which may be the best one
            assert (list(p.labels) == best) == (p.kind == "maxcut")
        else:
            assert max(Counter(p.labels).values()) - min(Counter(p.labels).values()) <= 1
        if p.kind == "shuffled":
            assert Counter(p.labels) == Counter(best)
        cut = quality_of_labels(distance, p.labels)["cut"]
        if p.kind == "random":
            assert cut <= quality_of_labels(distance, best)["cut"]
    assert partitions(distance, [3], ["shuffled"], draws=1, seed=7) == [found[11]]
    assert isinstance(found[0], Partition)
    assert partitions(distance, [3], ["shuffled"], draws=1, seed=8) != [found[11]]


@pytest.mark.parametrize(
    ("ks", "kinds", "draws", "said"),
    [
        ([2, 13], KINDS, 1, r"task\.ks=13: expected an integer from 1 to 12"),
        (2, KINDS, 1, r"task\.ks=2: expected a list"),
        ([2, 2], KINDS, 1, r"task\.ks=\[2,2\]: expected a list without repetition"),
        ([2], ["best"], 1, r"task\.kinds=\[best\]: expected kinds among maxcut, equal, random, shuffled"),
        ([2], "maxcut", 1, r"task\.kinds=maxcut: expected a list"),
        ([2], KINDS, 0, r"task\.draws=0: expected integer >= 1"),
    ],
)
def test_mistakes(distance: np.ndarray, ks: list[int], kinds: list[str], draws: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        partitions(distance, ks, kinds, draws, seed=0)


def test_measures_by_hand() -> None:
    D = np.array([[0, 1, 4], [1, 0, 2], [4, 2, 0.0]])
    assert quality(D, [1]) == quality_of_labels(D, [0, 1, 1])
    measures = quality_of_labels(D, [0, 1, 0])  # within: 4; across: 1 and 2
    assert measures["cut"] == 3.0 and measures["share"] == pytest.approx(3 / 7)
    assert measures["contrast"] == pytest.approx((1.5 - 4) / (1.5 + 4))
    assert mean_adjacent(D) == 1.5
