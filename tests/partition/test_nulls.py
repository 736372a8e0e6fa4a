import itertools

import numpy as np
import pytest

from raptor.partition.maxcut import SOLVERS, solve
from raptor.partition.nulls import (
    StationaryPath,
    p_value,
    permuted_draws,
    roughness,
    run_null_tests,
    toeplitz,
    toeplitz_draws,
)
from raptor.partition.phases import label_layers

FADING = 1 - np.exp(-np.arange(12) / 5)  # distance over steps of a path that forgets


def toeplitz_matrix(values: np.ndarray) -> np.ndarray:
    return values[np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))]


def planted(boundaries: list[int], within: float) -> np.ndarray:
    labels = np.array(label_layers(boundaries, 12))
    D = np.where(labels[:, None] == labels[None, :], within, 1.0)
    np.fill_diagonal(D, 0)
    return D


def path(rng: np.random.Generator, width: int, memory: float) -> np.ndarray:
    """Cosine distances along a stationary autoregressive path: depth without phases."""
    points = [rng.normal(size=width)]
    for _ in range(11):
        points.append(memory * points[-1] + np.sqrt(1 - memory**2) * rng.normal(size=width))
    x = np.array(points) / np.linalg.norm(points, axis=1, keepdims=True)
    return np.maximum(1 - x @ x.T, 0) * (1 - np.eye(12))


def test_toeplitz_mean_by_hand() -> None:
    D = np.array([[0, 1, 5, 9], [1, 0, 2, 7], [5, 2, 0, 3], [9, 7, 3, 0]], dtype=float)
    assert np.array_equal(toeplitz(D), toeplitz_matrix(np.array([0.0, 2, 6, 9])))
    assert np.allclose(toeplitz(toeplitz(D)), toeplitz(D))
    assert roughness(toeplitz(D)) < 1e-20
    assert roughness(D) == pytest.approx(2 * (1 + 0 + 1 + 1 + 1) / (2 * (3 * 4 + 2 * 36 + 81)))


@pytest.mark.parametrize("directions", [3, 11, 12, 40])
def test_draws_have_the_expected_distances_and_spread(directions: int) -> None:
    expected = toeplitz_matrix(FADING)
    rng = np.random.default_rng(0)
    drawn = np.array([StationaryPath(expected).draw(directions, rng) for _ in range(3000)])
    upper = np.triu_indices(12, 1)
    assert np.abs(drawn.mean(0) / (expected + np.eye(12)) - 1)[upper].max() < 0.06
    # a squared distance in n directions is chi-squared with n degrees of freedom
    relative = drawn.std(0)[upper] / expected[upper]
    assert np.abs(relative / np.sqrt(2 / directions) - 1).max() < 0.08
    assert np.array_equal(drawn[0], drawn[0].T)
    assert drawn.min() >= 0


def test_directions_are_fitted_to_how_rough_a_matrix_is() -> None:
    rng = np.random.default_rng(0)
    source = StationaryPath(toeplitz_matrix(FADING))
    for directions in (4, 400, 60_000):
        fits = [source.fit_directions(roughness(source.draw(directions, rng)), rng) for _ in range(5)]
        assert 0.4 < np.median(fits) / directions < 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_toeplitz_matrix_is_not_significant_and_a_planted_one_is(solver: str) -> None:
    flat = toeplitz_matrix(FADING)
    boundaries = {str(k): solve(flat, k, solver) for k in (1, 2, 3, 4)}
    tested = run_null_tests(flat, boundaries, solver, draws=99)
    assert tested["significant"] == {"1": None, "2": False, "3": False, "4": False}
    assert tested["toeplitz"]["3"]["contrast"]["p"] == 1.0
    assert tested["toeplitz"]["3"]["share"]["p"] == 1.0
    assert tested["directions"] is None

    blocks = planted([3, 6, 9], 0.5)
    tested = run_null_tests(blocks, {"4": solve(blocks, 4, solver)}, solver, draws=99)
    assert tested["significant"] == {"4": True}
    assert tested["toeplitz"]["4"]["contrast"]["p"] <= 0.02
    assert tested["layers"]["4"]["contrast"]["p"] <= 0.02


def test_planted_partitions_of_any_sizes_are_significant() -> None:
    rng = np.random.default_rng(0)
    options = [list(b) for k in (2, 3, 4) for b in itertools.combinations(range(1, 12), k - 1)]
    verdicts = []
    for i in rng.choice(len(options), 20, replace=False):
        D = planted(options[i], float(rng.choice([0.2, 0.4, 0.6])))
        verdicts.append(run_null_tests(D, {"k": options[i]}, "normalised", 99)["significant"]["k"])
    assert sum(verdicts) >= 18  # a phase of one layer beside long ones may be missed


@pytest.mark.parametrize(("width", "memory"), [(30, 0.85), (200, 0.5)])
def test_paths_without_phases_are_called_significant_rarely(width: int, memory: float) -> None:
    rng = np.random.default_rng(3)
    verdicts = []
    for _ in range(50):
        D = path(rng, width, memory)
        verdicts.append(run_null_tests(D, {"3": solve(D, 3, "normalised")}, "normalised", 39)["significant"]["3"])
    assert np.mean(verdicts) <= 0.12  # 0.05 and two standard errors of 50 draws


def test_the_published_distances_do_not_tell_phases_from_a_homogeneous_path(published: np.ndarray) -> None:
    for solver in SOLVERS:
        boundaries = {str(k): solve(published, k, solver) for k in (2, 3, 4)}
        tested = run_null_tests(published, boundaries, solver, draws=199)
        assert tested["significant"] == {"2": False, "3": False, "4": False}
        assert all(result["share"]["p"] <= 0.05 for result in tested["layers"].values())
        assert tested == run_null_tests(published, boundaries, solver, draws=199)


def test_draws_keep_what_their_null_keeps(published: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    permuted = permuted_draws(published, 3, rng)
    assert all(np.allclose(np.sort(D, axis=None), np.sort(published, axis=None)) for D in permuted)
    flat, directions = toeplitz_draws(toeplitz(published), 2, rng)
    assert directions is None
    assert np.allclose(flat[1], toeplitz(published))


def test_p_counts_the_observed_value_among_the_draws() -> None:
    assert p_value(3.0, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(3 / 5)
    assert p_value(5.0, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(1 / 5)
    assert p_value(0.1 + 0.2, [0.3] * 4) == 1.0
