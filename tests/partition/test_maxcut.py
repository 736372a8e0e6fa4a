import itertools
from typing import Any

import numpy as np
import pytest

from raptor.errors import ConfigError
from raptor.partition.maxcut import (
    brute_force,
    check_distance,
    cut_weight,
    equal_boundaries,
    exact,
    greedy,
    normalised,
    random_boundaries,
    solve,
)
from raptor.partition.phases import Phase, boundaries_of, check_boundaries, label_layers, phases_of
from raptor.partition.quality import equal_control, quality, random_control


def random_distance(rng: np.random.Generator, L: int) -> np.ndarray:
    D = np.triu(rng.random((L, L)), 1)
    return D + D.T


def test_exact_on_the_published_matrix(published: np.ndarray) -> None:
    assert [exact(published, k) for k in (1, 2, 3, 4)] == [[], [7], [5, 9], [4, 7, 10]]


def test_greedy_gives_the_published_phases(published: np.ndarray) -> None:
    assert [greedy(published, eps=eps) for eps in (0.20, 0.10, 0.09)] == [[7], [7, 10], [4, 7, 10]]
    assert [greedy(published, k=k) for k in (2, 3, 4)] == [[7], [7, 10], [4, 7, 10]]


def test_exact_equals_brute_force_on_random_matrices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        L = int(rng.integers(2, 11))
        D = random_distance(rng, L)
        for k in range(1, L + 1):
            assert exact(D, k) == brute_force(D, k)


def test_normalised_equals_trying_all_partitions() -> None:
    def cost(D: np.ndarray, boundaries: list[int]) -> float:
        phases = phases_of(boundaries, len(D))
        return sum(D[a:b, a:b].sum() / 2 / (b - a) for a, b in phases)

    rng = np.random.default_rng(0)
    for _ in range(100):
        L = int(rng.integers(2, 10))
        D = random_distance(rng, L)
        for k in range(1, L + 1):
            all_of_them = map(list, itertools.combinations(range(1, L), k - 1))
            assert normalised(D, k) == min(all_of_them, key=lambda boundaries: cost(D, boundaries))


def test_normalised_finds_every_planted_partition_and_exact_a_third_of_them() -> None:
    planted, found = 0, {"exact": 0, "normalised": 0, "greedy": 0}
    for within in (0.2, 0.4, 0.6):  # of the distance across
        for k in (2, 3, 4):
            for boundaries in map(list, itertools.combinations(range(1, 12), k - 1)):
                labels = np.array(label_layers(boundaries, 12))
                D = np.where(labels[:, None] == labels[None, :], within, 1.0)
                np.fill_diagonal(D, 0)
                planted += 1
                for solver in found:
                    found[solver] += solve(D, k, solver) == boundaries
    assert planted == 693
    assert found["normalised"] == 693
    assert found["exact"] == 245  # it prefers phases of equal size


def test_cut_weight_counts_pairs_across_phases_once() -> None:
    D = random_distance(np.random.default_rng(1), 7)
    labels = [0, 0, 1, 1, 1, 2, 2]
    by_hand = sum(D[i, j] for i, j in itertools.combinations(range(7), 2) if labels[i] != labels[j])
    assert label_layers([2, 5], 7) == labels
    assert cut_weight(D, [2, 5]) == pytest.approx(by_hand)


def test_exact_is_never_worse_than_greedy_or_random() -> None:
    rng = np.random.default_rng(2)
    for L in (8, 24, 48):
        D = random_distance(rng, L)
        for k in (2, 5, 8):
            best = cut_weight(D, exact(D, k))
            assert best >= cut_weight(D, greedy(D, k=k)) - 1e-9
            assert best >= max(cut_weight(D, random_boundaries(L, k, rng)) for _ in range(20)) - 1e-9


def test_equal_cuts_are_broken_to_the_first_layers() -> None:
    assert exact(np.zeros((5, 5)), 3) == [1, 2]
    assert greedy(np.zeros((5, 5)), k=2) == [1]


def test_block_structure_is_found_by_both_solvers() -> None:
    labels = np.array([0] * 4 + [1] * 3 + [2] * 5)
    D = (labels[:, None] != labels[None, :]).astype(float)
    assert exact(D, 3) == greedy(D, k=3) == [4, 7]
    measures = quality(D, [4, 7])
    assert (measures["share"], measures["within"], measures["cross"], measures["contrast"]) == (1.0, 0.0, 1.0, 1.0)


def test_quality_by_hand(published: np.ndarray) -> None:
    measures = quality(published, [7])
    inside = [published[i, j] for i, j in itertools.combinations(range(12), 2) if (i < 7) == (j < 7)]
    across = [published[i, j] for i, j in itertools.combinations(range(12), 2) if (i < 7) != (j < 7)]
    assert measures["cut"] == pytest.approx(sum(across))
    assert measures["share"] == pytest.approx(sum(across) / sum(inside + across))
    assert measures["within"] == pytest.approx(np.mean(inside))
    assert measures["cross"] == pytest.approx(np.mean(across))
    assert quality(published, [])["cross"] is None
    assert quality(published, list(range(1, 12)))["within"] is None


def test_random_control_is_uniform_and_below_the_optimum(published: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    drawn = [tuple(random_boundaries(5, 3, rng)) for _ in range(6000)]
    options = list(itertools.combinations(range(1, 5), 2))
    counts = [drawn.count(option) for option in options]
    assert sum(counts) == 6000
    assert max(abs(count - 1000) for count in counts) < 150
    control = random_control(published, 3)
    assert control["share_mean"] < control["share_max"] <= quality(published, exact(published, 3))["share"] + 1e-12


def test_equal_sizes_differ_by_one_layer_at_most() -> None:
    assert [equal_boundaries(12, k) for k in (1, 2, 3, 4)] == [[], [6], [4, 8], [3, 6, 9]]
    for L in range(1, 25):
        for k in range(1, L + 1):
            sizes = [end - start for start, end in phases_of(equal_boundaries(L, k), L)]
            assert len(sizes) == k
            assert max(sizes) - min(sizes) <= 1
    assert equal_control(np.zeros((6, 6)), 3)["boundaries"] == [2, 4]


def test_phases_and_boundaries_are_each_others_inverse() -> None:
    assert phases_of([7, 10], 12) == [Phase(0, 7), Phase(7, 10), Phase(10, 12)]
    assert boundaries_of(phases_of([4, 7, 10], 12)) == [4, 7, 10]
    assert phases_of([], 3) == [Phase(0, 3)]


@pytest.mark.parametrize(
    ("boundaries", "said"),
    [
        ([10, 7], "out of order"),
        ([7, 7], "out of order"),
        ([0], "some lie outside"),
        ([12], "some lie outside"),
        ([2.5], "no integers"),
    ],
)
def test_bad_boundaries_name_key_value_and_remedy(boundaries: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"surrogate\.boundaries=.*1\.\.11.*{said}"):
        check_boundaries(boundaries, 12)


def test_bad_requests_are_refused(published: np.ndarray) -> None:
    for k in (0, 13, True):
        with pytest.raises(ConfigError, match="from 1 to 12"):
            exact(published, k)
    with pytest.raises(ConfigError, match="exact or normalised or greedy"):
        solve(published, 3, "magic")
    with pytest.raises(ConfigError, match="one of them"):
        greedy(published)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        greedy(published, eps=2.0)


def test_bad_matrices_are_refused(published: np.ndarray) -> None:
    assert np.array_equal(check_distance(np.triu(published)), published)
    with pytest.raises(ConfigError, match="square"):
        check_distance(published[:5])
    with pytest.raises(ConfigError, match="1 - S"):
        check_distance(1 - published)
    lopsided = published.copy()
    lopsided[0, 1] = 5
    with pytest.raises(ConfigError, match="from its transpose"):
        check_distance(lopsided)
    with pytest.raises(ConfigError, match="finite"):
        check_distance(np.full((3, 3), np.nan))
