"""Write the report of the small-scale study: tables, figures, the data behind them, and one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from raptor.reporting.overview import runs_csv
from raptor.reporting.page import write_study_page
from raptor.reporting.prose import caption
from raptor.reporting.table import Table
from raptor.runs.study import Study
from raptor.studies.small_scale import rows as small_scale
from raptor.studies.small_scale import statistics as statistic
from raptor.studies.small_scale.bootstrap import RESAMPLES
from raptor.studies.small_scale.figures import all_figures
from raptor.studies.small_scale.rows import BASELINES, MEASURES, SCORES, SIDES
from raptor.utils.files import write_json, write_text

TEMPLATES = Path(__file__).parent / "templates"
NAMES = {
    **MEASURES,
    **SCORES,
    **SIDES,
    **BASELINES,
    "r2_registers": "R2 registers",
    **{f"r2_centered_{kind}": f"R2 centred {kind}" for kind in ("cls", "patches")},
    **{f"above_floor_{kind}": f"above best floor {kind}" for kind in ("cls", "patches")},
    "top1": "top-1",
    "teacher_top1": "teacher's top-1",
    "mean": "difference",
    "p": "p",  # the caption names the test
    "above": "teachers above 0",
    "clusters": "seeds",
    "raw": "over all rates",
    "within": "within rates",
    "partial": "partial, given the rate",
    "p_holm": "p (Holm)",
    "p_bh": "p (Benjamini-Hochberg)",
    "p_by_seed": "p by seed",
    "ci95_by_seed": "± by seed",
    "equal": "lead at equal balance",
    "balance_maxcut": "balance, max-cut",
    "balance_random": "balance, random",
    "size": "layers replaced",
    "gap": "layers between",
    "gaps": "depths compared",
}
SETTINGS = ("drop_path", "step")
TITLES = {
    "teachers": "Teachers",
    "above_floors": "Surrogates and their floors",
    "within_rates": "Phase measures and fit within drop rates",
    "paired": "Max-cut against other partitions",
    "equal_balance": "Max-cut's lead at equal sizes of phases",
    "correlations": "Phase measures and fit over drop rates",
    "stochastic_depth": "Effect of stochastic depth",
    "stochastic_depth_baselines": "Stochastic depth: R2 of doing nothing",
    "training": "Effect of training",
    "training_baselines": "Training: R2 of doing nothing",
    "swap_effects": "Layer swaps",
    "swaps_at_equal_gap": "Layer swaps at equal depth",
    "swap_trends": "Layer swaps and distance",
}
FIGURES = {
    "correlation_scatter": "Phase measures and fit",
    "correlations": "Correlation of phase measures with fit",
    "maxcut_against_others": "Max-cut against random and shuffled",
    "stochastic_depth": "Effect of stochastic depth",
    "training": "Effect of training",
    "layer_swaps": "Layer swaps",
    "distance_matrices": "Distance between layers",
    "r2_by_layer": "R2 by layer and token type",
}


def statistics(rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Compute every table of the report from the rows of the study, by name of file."""
    fits, teachers, swaps = rows["fits"], rows["teachers"], rows["swaps"]
    return {
        "teachers": teachers,
        "above_floors": statistic.above_floors(fits),
        "within_rates": statistic.within_rates(fits),
        "paired": statistic.paired(fits),
        "equal_balance": statistic.equal_balance(fits),
        "correlations": statistic.correlations(fits),
        "stochastic_depth": statistic.summarize_surrogates(fits[fits["stage"] == "trained"], "drop_path"),
        "untrained": statistic.summarize_surrogates(fits[fits["stage"] == "untrained"], "step"),
        "training": statistic.summarize_surrogates(statistic.training_trajectory(fits), "drop_path", "step"),
        "swap_effects": statistic.swap_effects(swaps),
        "swaps_at_equal_gap": statistic.swaps_at_equal_gap(swaps),
        "swap_trends": statistic.swap_trends(swaps),
    }


def write_small_scale(study: Study, output: Path, title: str) -> str:
    """Write the report of a study of ``task=partitions``; return its tables as Markdown.

    Parameters
    ----------
    study
        With runs that ``task.tags`` describe; see :mod:`raptor.studies.small_scale.rows`.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    """
    found = small_scale.runs(study)
    fits = small_scale.fits(found)
    rows = {
        "fits": fits,
        "teachers": small_scale.teachers(found),
        "swaps": small_scale.swaps(found),
        "layers": small_scale.layers(found),
        "paired_differences": statistic.paired_differences(fits),
    }
    computed = statistics(rows)
    (output / "data").mkdir(parents=True, exist_ok=True)
    for name, frame in {**rows, **computed}.items():
        write_text(output / "data" / f"{name}.csv", frame.to_csv(index=False))
    write_json(output / "small_scale.json", {name: frame.to_dict("records") for name, frame in computed.items()})
    write_text(output / "runs.csv", runs_csv(study))

    values = {"source": _source(study), "resamples": RESAMPLES}
    frames = _frames(computed)
    tables = [
        Table(name, heading, _shown(frames[name]), caption(f"table_{name}", TEMPLATES, **values))
        for name, heading in TITLES.items()
        if len(frames[name])
    ]
    for made in tables:
        made.write_markdown(output)
    figures = [
        (name, FIGURES[name], caption(f"figure_{name}", TEMPLATES, **values), figure)
        for name, figure in all_figures(found, rows, computed).items()
    ]
    write_study_page(study, output, title, tables, figures)
    return "\n\n".join(f"{made.title}\n\n{made.to_markdown()}" for made in tables)


def _frames(computed: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Arrange what the tables of :data:`TITLES` show: baselines, which have no k, apart from the surrogates."""
    untrained = computed["untrained"].drop(columns="step", errors="ignore")
    frames = {**computed, "stochastic_depth": pd.concat([computed["stochastic_depth"], untrained])}
    for name in ("stochastic_depth", "training"):
        frame = frames[name]
        baselines = [column for column in frame.columns if column.startswith(tuple(BASELINES))]
        settings = [column for column in SETTINGS if column in frame.columns]
        frames[name] = frame.drop(columns=baselines)
        frames[f"{name}_baselines"] = frame[[*settings, *baselines]].drop_duplicates() if baselines else pd.DataFrame()
    return frames


def _source(study: Study) -> str:
    """Describe teachers and data of the study in words."""
    found = small_scale.runs(study)
    vits = ", ".join(f"ViTs of {layers} layers" for layers in sorted({run["teacher"]["layers"] for run in found}))
    data = ", ".join(sorted({run["data"]["name"] for run in found}))
    return f"{len(found)} teachers ({vits}), data {data}"


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Put a value and its spread or interval in one cell; n in a column if all values share it."""
    shown = pd.DataFrame(index=frame.index)
    counts = frame[[column for column in frame.columns if column.endswith("_n")]]
    same = counts.nunique(axis=1).le(1).all()
    for column in frame.columns:
        values = frame[column]
        if column.endswith(("_std", "_ci95", "_low", "_high", "_n")) or column == "ci95":
            continue
        stem = column.removesuffix("_mean")
        text = values.map(_text if column not in SETTINGS else lambda v: "—" if v != v else f"{v:g}")
        if f"{stem}_std" in frame and stem != column:
            spread = frame[f"{stem}_std"].map(lambda v: "" if v != v else f" ± {v:.3f}")
            text = text + spread + ("" if same else frame[f"{stem}_n"].map(lambda n: f" ({n})"))
        elif f"{column}_low" in frame:
            bounds = zip(frame[f"{column}_low"], frame[f"{column}_high"], strict=True)
            intervals = ["" if low != low else f" [{_text(low)}, {_text(high)}]" for low, high in bounds]
            text = text + pd.Series(intervals, index=frame.index)
        elif f"{column}_ci95" in frame or (column == "mean" and "ci95" in frame):
            text = text + frame[f"{column}_ci95" if column != "mean" else "ci95"].map(lambda v: f" ± {_text(v)}")
        shown[NAMES.get(stem, stem.replace("_", " "))] = text.replace(NAMES)
    if same and not counts.empty:
        shown["seeds"] = counts.iloc[:, 0]
    return shown


def _text(value: object) -> str:
    if value is None or value != value:
        return "—"
    return f"{value:.3f}" if isinstance(value, float) else f"{value}"
