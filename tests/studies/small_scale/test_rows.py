"""The statistics of the small-scale study on results with known numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from raptor.studies.small_scale import rows as small_scale
from raptor.studies.small_scale import statistics as statistic


def measures(contrast: float) -> dict[str, float]:
    return {"cut": 1.0, "share": 0.5, "within": 0.1, "cross": 0.2, "contrast": contrast}


def run(stage: str, rate: float | None, seed: int, step: int, r2: float) -> dict[str, Any]:
    """A teacher whose max-cut surrogate has this R2, random 0.1 and 0.2 less, shuffled 0.05 more."""
    name = f"{stage}-{rate}-{step}-{seed}"
    pieces = {"k2-maxcut": r2, "k2-random0": r2 - 0.1, "k2-random1": r2 - 0.2, "k2-shuffled0": r2 + 0.05}
    partitions = {
        piece: {
            "kind": piece.split("-")[1].rstrip("01"),
            "k": 2,
            "draw": int(piece[-1]) if piece[-1].isdigit() else 0,
            "labels": [0, 1, 1],
            "measures": measures(r2 / 2),
        }
        for piece in pieces
    }
    metrics = {"val/teacher_top1": 0.8}
    for piece, value in pieces.items():
        metrics |= {f"val/{piece}/r2_cls": value, f"val/{piece}/r2_patches": 0.9, f"val/{piece}/top1": 0.4}
        metrics |= {f"val/{piece}/r2_registers": 0.9, f"val/{piece}/agreement": 0.7}
    swaps = [
        {"k": 2, "side": side, "size": 1, "replaced": [1], "by": [2], "distance": 0.1 * gap, "gap": float(gap)}
        | {"top1": top1, "agreement": top1}
        for side, gap, top1 in (
            ("intra", 1, 0.8),
            ("intra", 2, 0.6),
            ("inter", 2, 0.4 - 0.01 * seed),
            ("inter", 3, 0.2),
        )
    ]
    return {
        "name": name,
        "model": {"tags": {"stage": stage, "drop_path": rate, "step": step, "seed": seed}},
        "metrics": metrics,
        "partitions": partitions,
        "teacher_measures": {"adjacent": 1 - r2, "maxcut": {"2": {"measures": measures(r2 / 2)}}},
        "baselines": {"embedding": {"cls": [0.6, 0.2]}, "mean": {"cls": [0.3, 0.1], "patches": [0.5, 0.7]}},
        "layers": {"k2-maxcut": {"r2": {"cls": [0.9, 0.8]}, "cosine": {"cls": [0.99, 0.98]}}},
        "swaps": swaps,
    }


@pytest.fixture
def found() -> list[dict[str, Any]]:
    trained = [
        run("trained", rate, seed, 600, 0.5 + 0.4 * rate + 0.01 * seed) for rate in (0.0, 0.3, 0.6) for seed in range(3)
    ]
    early = [run("checkpoint", 0.3, seed, 50, 0.7 + 0.01 * seed) for seed in range(3)]
    return [*trained, *early, *(run("untrained", None, seed, 0, 0.9 + 0.01 * seed) for seed in range(3))]


def one(frame: pd.DataFrame, **wanted: Any) -> pd.Series:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_rows_by_hand(found: list[Any]) -> None:
    fits, teachers, layers = small_scale.fits(found), small_scale.teachers(found), small_scale.layers(found)
    assert (len(fits), len(teachers)) == (15 * 4, 15)
    assert fits["kept"].unique() == pytest.approx([0.5])
    row = one(fits, teacher="trained-0.3-600-1", piece="k2-random1")
    assert (row["kind"], row["draw"], row["r2_cls"]) == ("random", 1, pytest.approx(0.43))
    assert row["contrast"] == pytest.approx(0.315) and row["adjacent"] == pytest.approx(0.37)
    assert one(layers, teacher="trained-0.0-600-0", kind="maxcut", layer=2)["cosine"] == 0.98
    assert one(layers, teacher="trained-0.0-600-0", kind="mean", type="patches", layer=2)["r2"] == 0.7
    assert (row["embedding_cls"], row["mean_patches"]) == (pytest.approx(0.4), pytest.approx(0.6))
    assert np.isnan(row["embedding_patches"])
    assert teachers["training"].nunique() == 9 + 3  # checkpoints belong to the trainings that they are of


def test_correlations_of_a_known_relation(found: list[Any]) -> None:
    table = statistic.correlations(small_scale.fits(found))
    row = one(table, over="trained teachers, max-cut", k=2, measure="contrast", score="r2_cls")
    assert row["spearman"] == pytest.approx(1.0)
    assert np.isnan(row["spearman_low"])  # three seeds
    assert one(table, over="trained teachers, max-cut", measure="adjacent", score="r2_cls")["pearson"] == (
        pytest.approx(-1.0)
    )
    assert (row["n"], row["clusters"]) == (9, 3)
    wide = one(table, over="trained, checkpoints and untrained, max-cut", measure="contrast", score="r2_cls")
    assert (wide["n"], wide["clusters"]) == (15, 3)
    assert np.isnan(one(table, over="trained teachers, max-cut", measure="contrast", score="kept")["spearman"])


def test_max_cut_is_paired_with_the_mean_of_the_draws(found: list[Any]) -> None:
    table = statistic.paired(small_scale.fits(found))
    row = one(table, stage="trained", against="random", score="r2_cls")
    assert (row["mean"], row["n"], row["above"]) == (pytest.approx(0.15), 9, 9)
    assert row["p"] == pytest.approx(2 / 2**9)
    assert (row["seeds"], row["p_by_seed"]) == (3, 0.25)
    family = table[(table["stage"] == "trained") & table["p"].notna()]
    assert row["p_holm"] == pytest.approx(min(1.0, len(family) * row["p"]))
    assert one(table, stage="untrained", against="shuffled", score="r2_cls")["mean"] == pytest.approx(-0.05)
    assert set(table["stage"]) == {"trained", "checkpoint", "untrained"}


def test_a_study_of_max_cut_alone_has_no_pairs(found: list[Any]) -> None:
    fits = small_scale.fits(found)
    assert len(statistic.paired(fits[fits["kind"] == "maxcut"])) == 0


def test_drop_rate_and_training_by_hand(found: list[Any]) -> None:
    fits = small_scale.fits(found)
    by_rate = statistic.summarize_surrogates(fits[fits["stage"] == "trained"], "drop_path")
    assert by_rate["r2_cls_mean"].tolist() == pytest.approx([0.51, 0.63, 0.75])
    assert by_rate["r2_cls_n"].tolist() == [3, 3, 3]
    steps = statistic.summarize_surrogates(statistic.training_trajectory(fits), "drop_path", "step")
    assert steps["step"].tolist() == [0, 50, 600]  # of the trained, those at the checkpoints' rate alone
    assert steps["r2_cls_mean"].tolist() == pytest.approx([0.91, 0.71, 0.63])


def test_rates_with_checkpoints_are_kept_apart_and_share_the_untrained(found: list[Any]) -> None:
    found += [run("checkpoint", 0.6, seed, 50, 0.8 + 0.01 * seed) for seed in range(3)]
    steps = statistic.summarize_surrogates(statistic.training_trajectory(small_scale.fits(found)), "drop_path", "step")
    assert steps[["drop_path", "step"]].values.tolist() == [[r, s] for r in (0.3, 0.6) for s in (0, 50, 600)]
    assert steps["r2_cls_mean"].tolist() == pytest.approx([0.91, 0.71, 0.63, 0.91, 0.81, 0.75])
    assert set(steps["r2_cls_n"]) == {3}


def test_checkpoints_of_one_training_are_one_pair(found: list[Any]) -> None:
    found += [run("checkpoint", 0.3, seed, step, 0.7) for seed in range(3) for step in (100, 200, 400)]
    row = one(statistic.paired(small_scale.fits(found)), stage="checkpoint", against="random", score="r2_cls")
    assert (row["n"], row["p"]) == (3, 0.25)


def test_correlation_over_partitions_is_within_teachers(found: list[Any]) -> None:
    """Fits fall with contrast in each teacher, though teachers of more contrast fit better."""
    for one_run in found:
        for name, of in one_run["partitions"].items():
            of["measures"] = measures(
                2 * one_run["metrics"]["val/teacher_top1"] + one_run["metrics"]["val/k2-maxcut/r2_cls"]
            )
            of["measures"]["contrast"] -= 0.01 * one_run["metrics"][f"val/{name}/r2_cls"]
    table = statistic.correlations(small_scale.fits(found))
    within = one(table, over=statistic.WITHIN, measure="contrast", score="r2_cls")
    assert (within["spearman"], within["pearson"]) == (pytest.approx(-1.0), pytest.approx(-1.0))
    assert (within["n"], within["clusters"]) == (36, 3)
    assert one(table, over="trained teachers, max-cut", measure="contrast", score="r2_cls")["pearson"] > 0.99
    assert not len(table[(table["over"] == statistic.WITHIN) & (table["measure"] == "adjacent")])
    contiguous = one(table, over=statistic.CONTIGUOUS, measure="contrast", score="r2_cls")
    assert (contiguous["spearman"], contiguous["n"]) == (pytest.approx(-1.0), 27)
    assert np.isnan(one(table, over=statistic.WITHIN, measure="share", score="r2_cls")["spearman"])  # always 0.5


def test_swaps_of_different_teachers_make_no_trend(found: list[Any]) -> None:
    for i, one_run in enumerate(found):
        for j, swap in enumerate(one_run["swaps"]):
            swap["distance"] = i + (0.1, -0.1, 0.1, -0.1)[j]
            swap["top1"] = swap["agreement"] = 0.8 - 0.02 * i + (0.01, 0.01, -0.01, -0.01)[j]
    trend = one(statistic.swap_trends(small_scale.swaps(found)), stage="trained", measure="distance", score="kept")
    assert abs(trend["spearman"]) < 0.05


def test_what_a_teacher_has_not_is_left_out(found: list[Any]) -> None:
    for one_run in found:
        for key in [key for key in one_run["metrics"] if key.endswith(("r2_cls", "r2_registers"))]:
            del one_run["metrics"][key]
    fits = small_scale.fits(found)
    assert set(statistic.correlations(fits)["score"]) == {"r2_patches", "agreement", "kept"}
    assert "r2_cls" not in set(statistic.paired_differences(fits)["score"])
    assert "r2_registers_mean" not in statistic.summarize_surrogates(fits, "stage")


def test_swaps_by_hand(found: list[Any]) -> None:
    swaps = small_scale.swaps(found)
    row = one(statistic.swap_effects(swaps), stage="untrained", score="kept")
    assert (row["intra"], row["n"], row["above"]) == (pytest.approx(0.7 / 0.8), 3, 3)
    assert row["inter"] == pytest.approx((0.39 + 0.2) / 2 / 0.8)
    equal = one(statistic.swaps_at_equal_gap(swaps), stage="untrained", score="agreement")
    assert (equal["mean"], equal["gaps"]) == (pytest.approx(0.6 - 0.39), 1.0)  # a gap of two is on both sides
    trend = one(statistic.swap_trends(swaps), stage="trained", measure="distance", score="agreement")
    assert trend["spearman"] < -0.9 and trend["clusters"] == 3
