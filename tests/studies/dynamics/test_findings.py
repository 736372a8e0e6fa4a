"""Verdicts on findings and intervals, on curves that are known."""

from __future__ import annotations

import numpy as np
import pytest

from raptor.studies.dynamics.findings import judge_findings
from raptor.studies.dynamics.summary import jumps_table, share_and_interval


def arrays_of(gamma: np.ndarray, speed: np.ndarray) -> dict[str, np.ndarray]:
    steps = speed.mean(axis=0)
    distance = np.abs(np.cumsum(steps)[:, None] - np.cumsum(steps)[None, :])
    return {
        "curves/convergence/cls": gamma,
        "curves/speed/cls": speed,
        "boundaries": np.array([4]),
        "distance": distance,
    }


def test_verdicts_on_curves_that_are_known() -> None:
    layers = np.linspace(-6, 6, 13)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(50, 13))
    s_curve = 1 / (1 + np.exp(-1.5 * layers)) + noise
    straight = np.linspace(0, 1, 13) + noise
    concave = np.sqrt(np.linspace(0, 1, 13)) + noise
    jumps = np.full((50, 12), 0.1) + 0.2 * (np.arange(12) == 4) + noise[:, 1:]
    flat = np.full((50, 12), 0.1) + noise[:, 1:]

    def verdict(teacher: dict[str, np.ndarray], untrained: dict[str, np.ndarray], title: str) -> str:
        found = judge_findings({"teacher": teacher, "untrained": untrained})
        return next(row["verdict"] for row in found if row["finding"].startswith(title))

    known, control = arrays_of(s_curve, jumps), arrays_of(concave, flat)
    assert verdict(known, control, "Directions converge") == "shows"
    assert verdict(known, control, "Speed jumps") == "shows"
    assert verdict(control, known, "Directions converge") == "does not show"
    assert verdict(known, known, "Directions converge") == "shows, as without training"
    assert verdict(arrays_of(straight, flat), control, "Directions converge") in ("open", "does not show")


@pytest.mark.parametrize("layers", [4, 8, 10, 12, 16, 40])
def test_a_straight_rise_is_no_s_curve_at_any_depth(layers: int) -> None:
    straight = np.broadcast_to(np.linspace(0, 1, layers + 1), (20, layers + 1))
    arrays = {"curves/convergence/cls": straight, "boundaries": np.array([2])}
    (row,) = judge_findings({"teacher": arrays})
    assert row["values"]["teacher"]["mean"] == pytest.approx(0, abs=1e-9)
    assert row["verdict"] in ("open", "does not show")


def test_the_larger_of_two_noises_is_no_rise() -> None:
    """Thirds rise by 0.3, 0.4 and 0.3 in the mean, and by 0.1 more or less in each image: still an S-curve."""
    other = 0.1 * np.sign(np.random.default_rng(0).normal(size=400))
    gamma = np.stack([0 * other, 0.3 + other, 0.7 + other, 1 + 0 * other], axis=1)
    (row,) = judge_findings({"teacher": {"curves/convergence/cls": gamma, "boundaries": np.array([2])}})
    assert row["values"]["teacher"]["mean"] == pytest.approx(0.1, abs=0.01)
    assert row["verdict"] == "shows"


def test_basins_of_the_last_layer_alone_are_told_from_basins_on_the_way() -> None:
    """Of ten images all are right at layer 4, at layer 3 as many as by chance."""
    right = np.tile([0.2, 0.2, 0.2, 0.2, 1.0], (10, 1))
    arrays = {"basins/final/cls": right, "basins/chance": np.array(0.2), "boundaries": np.array([2])}
    end, before = judge_findings({"teacher": arrays})
    assert (end["values"]["teacher"]["mean"], end["verdict"]) == (pytest.approx(0.8), "shows")
    assert (before["values"]["teacher"]["mean"], before["verdict"]) == (pytest.approx(0.0), "open")


@pytest.mark.parametrize("way", ["random", "class"])
def test_kicks_that_only_lose_angle_as_norms_grow_correct_nothing(way: str) -> None:
    angles = np.tile([0.01, 0.005], (10, 1)) * np.random.default_rng(0).uniform(0.9, 1.1, size=(10, 1))
    still = np.zeros_like(angles)

    def verdict(carried: float) -> str:
        arrays = {"boundaries": np.array([1]), f"kicks/{way}/0/0.01/cls": angles}
        arrays |= {f"carried/{way}/0/0.01/cls": carried * angles}
        if way == "class":  # tokens that no class tells apart are not kicked, and not counted
            arrays |= {"kicks/class/4/0.01/cls": still, "carried/class/4/0.01/cls": still}
        (row,) = judge_findings({"teacher": arrays})
        return str(row["verdict"])

    assert verdict(1.0) == "open"  # shrinks as it would if carried along unchanged
    assert verdict(2.0) == "shows"
    assert verdict(0.5) == "does not show"


def test_a_jump_that_many_partitions_have_is_open() -> None:
    """One of the four other partitions jumps more than the second best, none more than the best."""
    speed = np.radians([[1.0, 1.0, 4.0, 5.0, 1.0, 1.0]] * 4)
    verdicts = {
        boundary: judge_findings({"teacher": {"curves/speed/cls": speed, "boundaries": np.array([boundary])}})[0]
        for boundary in (2, 3)
    }
    assert [row["verdict"] for row in verdicts.values()] == [
        "open (1 of 4 other partitions do as well)",
        "shows",
    ]


def test_jumps_are_set_beside_all_partitions() -> None:
    speed = np.radians([[9.0, 1.0, 5.0, 1.0, 7.0, 1.0]] * 4)
    table = jumps_table({"teacher": {"curves/speed/cls": speed, "boundaries": np.array([2, 4])}}, given=False)
    assert table.to_dict("records") == [
        {
            "network": "teacher",
            "tokens": "cls",
            "boundaries": "2, 4",
            "jump (degrees)": "5.00 ± 0.00",
            "other partitions with one as large": "0 of 9",
        }
    ]


def test_interval_of_a_share_stays_within_0_and_1() -> None:
    """Wilson's interval of n successes out of n begins at n / (n + z^2)."""
    share, low, high = share_and_interval(np.array([[1.0, 0.0]] * 10))
    z = 1.959964
    np.testing.assert_allclose(share, [1, 0])
    np.testing.assert_allclose(low, [10 / (10 + z**2), 0], atol=1e-6)
    np.testing.assert_allclose(high, [1, 1 - 10 / (10 + z**2)], atol=1e-6)
