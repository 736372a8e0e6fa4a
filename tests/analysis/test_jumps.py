"""Speed at phase boundaries on steps whose jump can be read off."""

import numpy as np
import pytest

from raptor.analysis.jumps import permutation_test, speed_jump

SPEED = np.array([[9.0, 1.0, 5.0, 1.0, 7.0, 1.0]])  # steps from layers 0 to 5


def test_steps_into_a_phase_against_the_others() -> None:
    """The first step counts on neither side."""
    assert speed_jump(SPEED, [2, 4]) == pytest.approx([6.0 - 1.0])
    assert speed_jump(np.vstack([SPEED, 2 * SPEED]), [1]) == pytest.approx([1 - 3.5, 2 - 7.0])


@pytest.mark.parametrize("boundaries", [[], [1, 2, 3, 4, 5]])
def test_no_boundary_or_no_other_step_is_no_jump(boundaries: list[int]) -> None:
    """Nothing to compare with."""
    assert speed_jump(SPEED, boundaries) is None


def test_partitions_with_a_jump_as_large_are_counted() -> None:
    """Of ten pairs of boundaries, none other reaches the best; six others reach the sum of the first pair."""
    assert permutation_test(SPEED, [2, 4]) == pytest.approx(1 / 10)
    assert permutation_test(SPEED, [1, 2]) == pytest.approx(7 / 10)


def test_too_many_partitions_are_sampled() -> None:
    """The share in a sample is near the exact one."""
    speed = np.random.default_rng(1).random((3, 24))
    exact = permutation_test(speed, [5, 9, 14], most=10_000)
    assert exact * 1771 == pytest.approx(round(exact * 1771))  # 23 choose 3
    assert permutation_test(speed, [5, 9, 14], most=1_500) == pytest.approx(exact, abs=0.05)
