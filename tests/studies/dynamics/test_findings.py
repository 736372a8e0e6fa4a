"""Verdicts on findings, their controls, and intervals, on curves that are known."""

from __future__ import annotations

import numpy as np
import pytest

from raptor.studies.dynamics.controls import control_verdicts
from raptor.studies.dynamics.findings import FINDINGS, evaluate_findings
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


def verdicts(arrays: dict[str, np.ndarray], control: dict[str, np.ndarray] | None = None) -> dict[str, str]:
    """Verdicts by the beginning of the finding's title."""
    networks = {"teacher": arrays, **({"untrained": control} if control is not None else {})}
    return {row["finding"].partition(":")[0]: row["verdict"] for row in evaluate_findings(networks)}


def test_every_finding_shows_on_its_positive_control_and_on_no_negative_one() -> None:
    rows = control_verdicts()
    assert [(row["finding"], row["tokens"]) for row in rows] == [(f.title, f.tokens) for f in FINDINGS]
    for row in rows:
        assert row["converging"] == "shows", row
        assert row["diverging"].startswith(("does not show", "open")), row


def test_findings_of_the_published_distances() -> None:
    """Its gamma stays below 0.25 up to layer 11 and reaches 1 in the last step: one bend, not two."""
    published = {row["finding"].partition(":")[0]: row["published"] for row in control_verdicts() if row["published"]}
    assert published == {
        "Convergence starts slowly": "shows",
        "Convergence levels off": "does not show",
        "Speed jumps at phase boundaries": "open (p = 0.20 among other partitions)",
    }


def test_verdicts_on_curves_that_are_known() -> None:
    layers = np.linspace(-6, 6, 25)
    noise = np.random.default_rng(0).normal(scale=0.01, size=(50, 25))
    s_curve = 1 / (1 + np.exp(-1.5 * layers)) + noise
    straight = np.linspace(0, 1, 25) + noise
    concave = np.sqrt(np.linspace(0, 1, 25)) + noise
    jumps = np.full((50, 24), 0.1) + 0.2 * (np.arange(24) == 4) + noise[:, 1:]
    flat = np.full((50, 24), 0.1) + noise[:, 1:]

    known, control = arrays_of(s_curve, jumps), arrays_of(concave, flat)
    assert set(verdicts(known, control).values()) == {"shows"}
    assert verdicts(control, known)["Convergence starts slowly"] == "does not show"
    assert verdicts(arrays_of(1 - concave[:, ::-1], flat))["Convergence levels off"] == "does not show"
    assert verdicts(known, known)["Convergence levels off"] == "shows, as without training"
    for verdict in verdicts(arrays_of(straight, flat), control).values():
        assert verdict.startswith(("open", "does not show"))


@pytest.mark.parametrize("layers", [4, 8, 10, 12, 16, 40])
def test_a_straight_rise_is_no_s_curve_at_any_depth(layers: int) -> None:
    straight = np.broadcast_to(np.linspace(0, 1, layers + 1), (20, layers + 1))
    arrays = {"curves/convergence/cls": straight, "boundaries": np.array([2])}
    for row in evaluate_findings({"teacher": arrays}):
        assert row["values"]["teacher"]["mean"] == pytest.approx(0, abs=1e-9)
        assert row["verdict"] in ("open", "does not show")


def test_thirds_of_an_s_curve_by_hand() -> None:
    """Thirds rise by 0.3, 0.5 and 0.2 in the mean, and by 0.1 more or less in each image."""
    other = 0.1 * np.sign(np.random.default_rng(0).normal(size=400))
    gamma = np.stack([0 * other, 0.3 + other, 0.8 + other, 1 + 0 * other], axis=1)
    first, last = evaluate_findings({"teacher": {"curves/convergence/cls": gamma, "boundaries": np.array([2])}})
    assert first["values"]["teacher"]["mean"] == pytest.approx(1 / 3 - 0.3 - other.mean())
    assert last["values"]["teacher"]["mean"] == pytest.approx(1 / 3 - 0.2 + other.mean())
    assert last["verdict"] == "shows"


def test_basins_of_the_last_layer_alone_are_told_from_basins_on_the_way() -> None:
    """Of ten images all are right at layer 4, at layer 3 as many as by chance."""
    right = np.tile([0.2, 0.2, 0.2, 0.2, 1.0], (10, 1))
    arrays = {"basins/final/cls": right, "basins/chance": np.array(0.2), "boundaries": np.array([2])}
    end, before = evaluate_findings({"teacher": arrays})
    assert (end["values"]["teacher"]["mean"], end["verdict"]) == (pytest.approx(0.8), "shows")
    assert (before["values"]["teacher"]["mean"], before["verdict"]) == (pytest.approx(0.0), "open")


@pytest.mark.parametrize("way", ["random", "class"])
def test_shrinking_and_correction_are_told_apart(way: str) -> None:
    angles = np.tile([0.01, 0.005], (10, 1)) * np.random.default_rng(0).uniform(0.9, 1.1, size=(10, 1))
    still = np.zeros_like(angles)

    def both(first: float, offset: float) -> list[str]:
        arrays = {"boundaries": np.array([1]), f"perturbed/{way}/0/0.01/cls": angles * [first, 1]}
        arrays |= {f"constant_offset/{way}/0/0.01/cls": offset * angles}
        if way == "class":  # tokens that no class tells apart are not perturbed, and not counted
            arrays |= {"perturbed/class/4/0.01/cls": still, "constant_offset/class/4/0.01/cls": still}
        return [row["verdict"] for row in evaluate_findings({"teacher": arrays})]

    assert both(1.0, 1.0) == ["shows", "open"]  # shrinks, as it would under a constant offset
    assert both(1.0, 2.0) == ["shows", "shows"]
    assert both(0.2, 2.0) == ["does not show", "shows"]  # grows, but less than a constant offset
    assert both(0.2, 0.5) == ["does not show", "does not show"]


def test_a_jump_that_many_partitions_have_is_open() -> None:
    """Of 23 boundaries none has a larger jump than 5, one has a larger one than 4."""
    speed = np.radians([[1.0] * 4 + [4.0, 5.0] + [1.0] * 18] * 4)
    found = {b: verdicts({"curves/speed/cls": speed, "boundaries": np.array([b])}) for b in (4, 5)}
    assert found[4] == {"Speed jumps at phase boundaries": "open (p = 0.09 among other partitions)"}
    assert found[5] == {"Speed jumps at phase boundaries": "shows"}
    (short,) = verdicts({"curves/speed/cls": speed[:, :6], "boundaries": np.array([5])}).values()
    assert short == "open (p = 0.20 among other partitions)"  # too few layers to tell


def test_jumps_are_set_beside_all_partitions() -> None:
    speed = np.radians([[9.0, 1.0, 5.0, 1.0, 7.0, 1.0]] * 4)
    table = jumps_table({"teacher": {"curves/speed/cls": speed, "boundaries": np.array([2, 4])}}, given=False)
    assert table.to_dict("records") == [
        {
            "network": "teacher",
            "tokens": "cls",
            "boundaries": "2, 4",
            "jump (degrees)": "5.00 ± 0.00",
            "p among contiguous partitions": "0.100",
        }
    ]


def test_interval_of_a_share_stays_within_0_and_1() -> None:
    """Wilson's interval of n successes out of n begins at n / (n + z^2)."""
    share, low, high = share_and_interval(np.array([[1.0, 0.0]] * 10))
    z = 1.959964
    np.testing.assert_allclose(share, [1, 0])
    np.testing.assert_allclose(low, [10 / (10 + z**2), 0], atol=1e-6)
    np.testing.assert_allclose(high, [1, 1 - 10 / (10 + z**2)], atol=1e-6)
