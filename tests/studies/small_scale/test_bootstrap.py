import numpy as np
import pytest
from scipy import stats

from raptor.studies.small_scale.bootstrap import Paired, correlate, weighted_pearson, weighted_ranks


def test_a_monotone_relation_has_spearman_one() -> None:
    x = np.arange(1.0, 11.0)
    found = correlate(x, x**3, list("abcdefghij"))
    assert [found.spearman, found.spearman_low, found.spearman_high] == pytest.approx([1.0] * 3)
    assert found.pearson == pytest.approx(stats.pearsonr(x, x**3)[0]) and found.pearson < 1
    assert (found.n, found.clusters) == (10, 10)
    assert correlate(x, -x, list("abcdefghij")).pearson_high == pytest.approx(-1.0)


def test_weights_stand_for_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, size=(2, 12)).astype(float)  # with ties
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=30).astype(float)
    ranks = [weighted_ranks(v, weights) for v in (x, y)]
    spearman, pearson = weighted_pearson(ranks[0], ranks[1], weights), weighted_pearson(x, y, weights)
    for row, w in enumerate(weights.astype(int)):
        a, b = np.repeat(x, w), np.repeat(y, w)
        assert np.repeat(ranks[0][row], w) == pytest.approx(stats.rankdata(a))
        assert spearman[row] == pytest.approx(stats.spearmanr(a, b)[0])
        assert pearson[row] == pytest.approx(stats.pearsonr(a, b)[0])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng, truth, held = np.random.default_rng(1), 0.6, 0
    for _ in range(60):
        x = rng.normal(size=40)
        y = truth * x + np.sqrt(1 - truth**2) * rng.normal(size=40)
        found = correlate(x, y, range(40), resamples=300)
        held += found.pearson_low <= truth <= found.pearson_high
    assert 51 <= held <= 60


def test_rows_of_one_teacher_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 10))
    once = correlate(x, y, range(10))
    thrice = correlate(np.repeat(x, 3), np.repeat(y, 3), np.repeat(range(10), 3).tolist())
    apart = correlate(np.repeat(x, 3), np.repeat(y, 3), range(30))
    assert (thrice.pearson_low, thrice.pearson_high) == pytest.approx((once.pearson_low, once.pearson_high))
    assert apart.pearson_high - apart.pearson_low < 0.75 * (once.pearson_high - once.pearson_low)


def test_what_has_no_correlation() -> None:
    assert np.isnan(correlate([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], "abc").pearson)
    assert np.isnan(correlate([1.0, 2.0], [3.0, 4.0], "ab").spearman)
    few = correlate([1.0, 2.0, 3.0, np.nan], [1.0, 3.0, 2.0, 9.0], "abcd")
    assert few.spearman == pytest.approx(0.5) and np.isnan(few.spearman_low)
    assert (few.n, few.clusters) == (3, 3)


def test_paired_differences_by_hand() -> None:
    found = Paired.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, float("nan")])
    assert found.interval.mean == 3.5 and found.interval.n == 6 and found.above == 6
    assert found.p == pytest.approx(2 / 2**6)  # all signs alike: the two outermost of 64 assignments
    half = stats.t.ppf(0.975, 5) * np.std([1, 2, 3, 4, 5, 6], ddof=1) / np.sqrt(6)
    assert found.interval.ci95 == pytest.approx(half)
    nothing = Paired.of([0.0, 0.0])
    assert np.isnan(nothing.p) and nothing.above == 0
    assert Paired.of([]).interval.n == 0
