"""Write the study's numbers into its page, from the CSVs beside it.

``python -m raptor.studies.small_scale.recompute docs/results``. The page holds pairs of comments, ``<!-- NAME -->`` and
``<!-- end -->``; what stands between them is replaced by the table of that name. With ``--check`` nothing is written,
and the exit code says whether anything would change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from raptor.reporting.recompute import fill_page
from raptor.reporting.statistics import MeanCI
from raptor.studies.small_scale import statistics as statistic
from raptor.studies.small_scale.rows import SCORES

PAGE = "small_scale.md"
DATA = {"digits": "small_scale", "fashion": "small_scale_fashion", "unscaled": "small_scale_unscaled"}
SHOWN = ("r2_cls", "r2_patches", "agreement", "kept")
FITTED = ("r2_cls", "r2_patches")
MEASURES = ("adjacent", "contrast", "share")
BLOCK = re.compile(r"(<!-- ([a-z]+)_([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(value: float, digits: int = 3) -> str:
    """Format a number; a dash where there is none, and no minus before zero."""
    if value != value:
        return "—"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def p_text(p: float) -> str:
    """Format a p-value with the digits that say something."""
    return "—" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def paired_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate max-cut less each other kind over trained teachers, with adjusted p and with seeds as the unit."""
    table = statistic.paired(fits)
    rows = []
    for (k, against, score), group in table[table["stage"] == "trained"].groupby(["k", "against", "score"], sort=False):
        row = group.iloc[0]
        rows.append(
            {"k": k, "against": against, "score": SCORES[str(score)]}
            | {
                "12 teachers": f"{number(row['mean'])} ± {number(row['ci95'])}",
                "above 0": f"{row['above']} of {row['n']}",
            }
            | {"p": p_text(row["p"]), "p (Holm)": p_text(row["p_holm"]), "p (BH)": p_text(row["p_bh"])}
            | {f"{row['seeds']} seeds": f"± {number(row['ci95_by_seed'])}, p {p_text(row['p_by_seed'])}"}
        )
    return pd.DataFrame(rows)


def balance_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate max-cut's lead over random partitions as it is, and at equally balanced sizes."""
    return pd.DataFrame(
        [
            {"k": row["k"], "score": SCORES[row["score"]], "lead over random": number(row["mean"], 4)}
            | {"lead at equal balance": f"{number(row['equal'], 4)} ± {number(row['equal_ci95'], 4)}"}
            | {"balance, max-cut": number(row["balance_maxcut"], 2), "random": number(row["balance_random"], 2)}
            for row in statistic.equal_balance(fits).to_dict("records")
        ]
    )


def within_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate correlations over and within drop rates."""
    table = statistic.within_rates(fits)
    return pd.DataFrame(
        [
            {"k": row["k"], "measure": row["measure"], "score": SCORES[row["score"]]}
            | {"over all rates": number(row["raw"], 2), "within rates": number(row["within"], 2)}
            | {
                "partial, given the rate": number(row["partial"], 2),
                "p": p_text(row["p"]),
                "p (Holm)": p_text(row["p_holm"]),
            }
            for row in table.to_dict("records")
            if row["score"] in (*FITTED, "kept")
        ]
    )


def contiguous_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate correlations over the contiguous partitions of a teacher."""
    table = statistic.correlations(fits)
    contiguous = table[(table["over"] == statistic.CONTIGUOUS) & table["score"].isin(SHOWN)]
    return pd.DataFrame(
        [
            {"k": row["k"], "measure": row["measure"], "score": SCORES[row["score"]], "n": row["n"]}
            | {"Spearman": number(row["spearman"], 2)}
            for row in contiguous.to_dict("records")
        ]
    )


def rates_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate teachers and their max-cut surrogates by drop rate, with the trivial baselines."""
    best = fits[(fits["kind"] == "maxcut") & fits["stage"].isin(["trained", "untrained"])]
    rows = []
    for rate, group in best.groupby(
        best["drop_path"].map("{:.1f}".format).where(best["stage"] == "trained", "untrained")
    ):
        row = {"rate": rate, "teacher's top-1 (%)": _spread(group, "teacher_top1", 1, 100.0)}
        row["adjacent layers"] = _spread(group, "adjacent")
        for score in FITTED:
            for k, part in group.groupby("k"):
                row[f"{SCORES[score]}, k={k}"] = _spread(part, score)
        rows.append(row | _baselines(group))
    return pd.DataFrame(rows)


def training_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Tabulate checkpoints of trainings with max-cut surrogates of the least k, with the trivial baselines."""
    trajectory = statistic.training_trajectory(fits)
    best = trajectory[(trajectory["kind"] == "maxcut") & (trajectory["k"] == trajectory["k"].min())]
    return pd.DataFrame(
        [
            {"steps": int(step), "teacher's top-1 (%)": _spread(group, "teacher_top1", 1, 100.0)}
            | {f"{SCORES[score]}, k={int(group['k'].min())}": _spread(group, score) for score in FITTED}
            | _baselines(group)
            for step, group in best.groupby("step")
        ]
    )


def swaps_table(swaps: pd.DataFrame) -> pd.DataFrame:
    """Tabulate what layer swaps keep, in percent of the teacher's accuracy and in agreement."""
    rows = []
    for row in statistic.adjusted(statistic.swap_effects(swaps)).to_dict("records"):
        if row["stage"] == "trained":
            sides = {side: f"{number(100 * row[side], 1)} ± {number(100 * row[f'{side}_ci95'], 1)}" for side in SIDES}
            rows.append(
                {"layers replaced": f"{row['size']}", "score (%)": SCORES[row["score"]]}
                | {"same phase": sides["intra"], "another phase": sides["inter"]}
                | {"difference": f"{number(100 * row['mean'], 1)} ± {number(100 * row['ci95'], 1)}"}
                | {"p": p_text(row["p"]), "p (Holm)": p_text(row["p_holm"])}
            )
    for row in statistic.swaps_at_equal_gap(swaps).to_dict("records"):
        if row["stage"] == "trained":
            rows.append(
                {"layers replaced": "1, at equal depth", "score (%)": SCORES[row["score"]]}
                | {"same phase": "", "another phase": ""}
                | {"difference": f"{number(100 * row['mean'], 1)} ± {number(100 * row['ci95'], 1)}"}
                | {"p": p_text(row["p"]), "p (Holm)": ""}
            )
    return pd.DataFrame(rows)


SIDES = ("intra", "inter")
TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "paired": paired_table,
    "balance": balance_table,
    "within": within_table,
    "contiguous": contiguous_table,
    "rates": rates_table,
    "training": training_table,
    "swaps": swaps_table,
}


def _spread(frame: pd.DataFrame, column: str, digits: int = 3, scale: float = 1.0) -> str:
    """Mean ± standard deviation over seeds of a column that every row of a teacher shares."""
    values = frame.drop_duplicates("teacher")[column].astype(float)
    interval = MeanCI.of((scale * values).tolist())
    return f"{number(interval.mean, digits)} ± {number(interval.std, digits)}"


def _baselines(frame: pd.DataFrame) -> dict[str, str]:
    teachers = frame.drop_duplicates("teacher")
    names = {"embedding": "layer 0 held", "mean": "mean image"}
    return {
        f"{title}, {kind}": number(float(teachers[f"{name}_{kind}"].mean()), 2)
        for kind in ("cls", "patches")
        for name, title in names.items()
    }


def make_table(folder: Path, data: str, table: str) -> str:
    """Compute one table from the CSVs of a folder, as Markdown."""
    kind = "swaps" if table == "swaps" else "fits"
    frame = pd.read_csv(folder / f"{DATA[data]}_{kind}.csv")
    return TABLES[table](frame).to_markdown(index=False, disable_numparse=True)


def fill(folder: Path, text: str) -> str:
    """Replace every marked block of a page by its table."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{make_table(folder, match[2], match[3])}\n\n{match[4]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill in the page of a folder, or check it; see :func:`raptor.reporting.recompute.fill_page`."""
    return fill_page(PAGE, fill, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
