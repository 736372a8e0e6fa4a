"""Statistics against confounding, on numbers that are known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raptor.studies.small_scale.confounding import (
    balance,
    benjamini_hochberg,
    by_seed,
    correlations_within_rates,
    flip_signs,
    holm,
    lead_at_equal_balance,
    partial_spearman,
    permute_seeds,
)


def study(seeds: int, within: float, rng: np.random.Generator, rates: int = 4) -> pd.DataFrame:
    """Teachers whose measure and score both follow the rate, and each other within it by ``within``."""
    rows = []
    for rate in range(rates):
        for seed in range(seeds):
            own = rng.normal()
            rows.append(
                {"stage": "trained", "kind": "maxcut", "k": 2, "drop_path": rate, "seed": seed}
                | {"contrast": 10 * rate + own, "r2_cls": 10 * rate + within * own + (1 - abs(within)) * rng.normal()}
            )
    return pd.DataFrame(rows)


def test_adjusted_p_values_by_hand() -> None:
    p = [0.01, 0.04, math.nan, 0.03, 0.5]
    assert holm(p) == pytest.approx([0.04, 0.09, math.nan, 0.09, 0.5], nan_ok=True)
    assert benjamini_hochberg(p) == pytest.approx([0.04, 0.04 * 4 / 3, math.nan, 0.04 * 4 / 3, 0.5], nan_ok=True)
    assert benjamini_hochberg([0.02, 0.03, 0.6]) == pytest.approx(stats.false_discovery_control([0.02, 0.03, 0.6]))
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_a_correlation_over_rates_is_none_within_them() -> None:
    rng = np.random.default_rng(0)
    (row,) = correlations_within_rates(study(40, 0.0, rng), ["contrast"], ["r2_cls"]).to_dict("records")
    assert row["raw"] > 0.9
    assert abs(row["within"]) < 0.2
    assert abs(row["partial"]) < 0.2
    assert row["within_low"] < 0 < row["within_high"]
    assert row["p"] > 0.05
    assert (row["n"], row["seeds"]) == (160, 40)


def test_a_correlation_within_rates_is_found() -> None:
    rng = np.random.default_rng(0)
    fits = study(12, -0.8, rng)
    table = correlations_within_rates(fits.assign(kept=fits["drop_path"]), ["contrast"], ["r2_cls", "kept"])
    row = table.iloc[0]
    assert row["raw"] > 0.8
    assert row["within"] < -0.6
    assert row["within_high"] < 0
    assert row["p"] <= 0.01
    assert row["p_holm"] == row["p"]  # the other score is the rate itself, which does not vary within rates
    assert math.isnan(table.iloc[1]["within"])


def test_three_seeds_give_no_interval_and_no_small_p() -> None:
    (row,) = correlations_within_rates(study(3, 1.0, np.random.default_rng(0)), ["contrast"], ["r2_cls"]).to_dict(
        "records"
    )
    assert row["within"] == pytest.approx(1.0)
    assert math.isnan(row["within_low"])
    assert row["p"] == pytest.approx(1 / 6)


def test_partial_correlation_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=30)
    x, y = z + rng.normal(size=30), -z + rng.normal(size=30)
    r = {pair: stats.spearmanr(*pair_of)[0] for pair, pair_of in {"xy": (x, y), "xz": (x, z), "yz": (y, z)}.items()}
    expected = (r["xy"] - r["xz"] * r["yz"]) / math.sqrt((1 - r["xz"] ** 2) * (1 - r["yz"] ** 2))
    assert partial_spearman(x.tolist(), y.tolist(), z.tolist()) == pytest.approx(expected)
    assert math.isnan(partial_spearman([1, 1, 1], [1, 2, 3], [3, 1, 2]))


def test_permuting_seeds_counts_orders_by_hand() -> None:
    """Of two seeds, the other order turns the correlation around: as far from 0."""
    frame = pd.DataFrame({"drop_path": [0, 0], "seed": [0, 1], "contrast": [0.0, 1.0], "r2_cls": [0.0, 1.0]})
    assert permute_seeds(frame, "contrast", "r2_cls") == 1.0
    assert math.isnan(permute_seeds(frame.assign(r2_cls=1.0), "contrast", "r2_cls"))


def test_flipping_signs_by_hand() -> None:
    assert flip_signs([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    assert flip_signs([1.0, -1.0, math.nan]) == pytest.approx(1.0)
    assert flip_signs([0.1] * 20) < 0.01
    assert math.isnan(flip_signs([0.0, 0.0]))


def test_seeds_are_the_unit() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 1, 1, 2, 2], "difference": [1.0, 3.0, 2.0, 2.0, 1.0, 5.0]})
    found = by_seed(frame)
    assert found["seeds"] == 3
    assert found["p_by_seed"] == pytest.approx(0.25)
    assert found["ci95_by_seed"] == pytest.approx(stats.t.ppf(0.975, 2) * np.std([2, 2, 3], ddof=1) / math.sqrt(3))


def test_balance_of_sizes_by_hand() -> None:
    assert balance("0 0 1 1") == pytest.approx(1.0)
    assert balance("0 1 1 1") == pytest.approx(math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))) / 2)
    assert balance("0 1 0 1") == balance("0 0 1 1")


@pytest.mark.parametrize("lead", [0.0, 0.3])
def test_a_lead_that_balance_explains_is_gone_at_equal_balance(lead: float) -> None:
    rows = []
    for teacher in range(12):
        ends = {"maxcut": 6, "random": 1 + teacher % 5}
        for kind, end in ends.items():
            labels = " ".join(["0"] * end + ["1"] * (12 - end))
            score = balance(labels) + lead * (kind == "maxcut") + 0.01 * teacher
            rows.append(
                {"stage": "trained", "kind": kind, "k": 2, "teacher": teacher, "labels": labels, "r2_cls": score}
            )
    (row,) = lead_at_equal_balance(pd.DataFrame(rows), ["r2_cls"]).to_dict("records")
    assert row["mean"] > lead + 0.05
    assert row["equal"] == pytest.approx(lead, abs=1e-9)
    assert row["equal_ci95"] < 1e-6
    assert row["balance_maxcut"] == 1.0 > row["balance_random"]
