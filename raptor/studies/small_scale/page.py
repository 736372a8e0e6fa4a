"""The report of the small-scale study: tables, figures, the data behind them, and one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from raptor.reporting import table
from raptor.reporting.page import write_study_page
from raptor.runs.study import Study
from raptor.studies.small_scale import rows as small_scale
from raptor.studies.small_scale import statistics as statistic
from raptor.studies.small_scale.bootstrap import RESAMPLES
from raptor.studies.small_scale.figures import all_figures
from raptor.studies.small_scale.rows import BASELINES, MEASURES, SCORES, SIDES
from raptor.utils.files import write_json, write_text

TRIVIAL = (
    "Baselines that follow nothing: layer 0 held at every layer, and at every token the mean over the held-out images "
    "themselves, which no constant beats."
)
SEEDS = "mean ± standard deviation over seeds, their number in brackets or in the last column"
NAMES = {
    **MEASURES,
    **SCORES,
    **SIDES,
    **BASELINES,
    "r2_registers": "R2 registers",
    "top1": "top-1",
    "teacher_top1": "teacher's top-1",
    "mean": "difference",
    "p": "Wilcoxon's p",
    "above": "teachers above 0",
    "clusters": "trainings",
    "size": "layers replaced",
    "gap": "layers between",
    "gaps": "depths compared",
}
SETTINGS = ("drop_path", "step")
RESAMPLED = f"95 % percentile intervals of {RESAMPLES} bootstrap draws of whole trainings, each with all of its rows"
PAIRED = (
    "Differences within each teacher, averaged over draws (and checkpoints) first; n teachers, 95 % Student "
    "interval of the mean, two-sided Wilcoxon signed-rank test, not corrected for the number of comparisons. Teachers "
    "of equal seed share their first weights and their order of images"
)
TITLES = {
    "teachers": "Teachers",
    "correlations": "Phase measures and fit",
    "paired": "Max-cut against random and shuffled partitions",
    "stochastic_depth": "Effect of stochastic depth",
    "stochastic_depth_baselines": "Stochastic depth: R2 of doing nothing",
    "training": "Effect of training",
    "training_baselines": "Training: R2 of doing nothing",
    "swap_effects": "Layer swaps",
    "swaps_at_equal_gap": "Layer swaps at equal depth",
    "swap_trends": "Layer swaps and distance",
}
CAPTIONS = {
    "teachers": "Every teacher of the study, however well it trained; top-1 on held-out images.",
    "correlations": "Over teachers (max-cut partitions), or over the partitions of a teacher, with and without "
    f"shuffled ones: there each teacher's own mean is taken from both sides first. {RESAMPLED}.",
    "paired": f"Max-cut less the other kind, above 0: max-cut is better. {PAIRED}.",
    "stochastic_depth": f"Trained teachers and their max-cut surrogates; {SEEDS}. Last rows: untrained control, "
    "at chance, where agreement and accuracy kept mean nothing.",
    "stochastic_depth_baselines": f"{TRIVIAL} Against them stands the R2 of the table above; {SEEDS}.",
    "training_baselines": f"{TRIVIAL} Against them stands the R2 of the table above; {SEEDS}.",
    "training": "Untrained teachers (step 0), checkpoints, and what they became, for each drop rate with checkpoints; "
    f"max-cut surrogates; {SEEDS}.",
    "swap_effects": f"Layers replaced by others of the same phase or of another, max-cut phases. {PAIRED}.",
    "swaps_at_equal_gap": "One layer replaced, same phase less another between swaps whose layers lie equally far "
    f"apart in depth. {PAIRED}.",
    "swap_trends": "What a swap keeps against distance and depth between the layers, each teacher's own mean taken "
    f"from both sides first. {RESAMPLED}.",
}
FIGURES = {
    "correlation_scatter": ("Phase measures and fit", "One point for each teacher and k, max-cut partition."),
    "correlations": ("Correlation of phase measures with fit", f"Spearman; {RESAMPLED}. n: rows."),
    "maxcut_against_others": (
        "Max-cut against random and shuffled",
        "Points: teachers; diamonds: mean with 95 % Student interval; above 0: max-cut is better.",
    ),
    "stochastic_depth": (
        "Effect of stochastic depth",
        f"Max-cut surrogates, mean with 95 % Student interval over seeds; grey: untrained control. {TRIVIAL}",
    ),
    "training": (
        "Effect of training",
        f"Step 0: untrained. Max-cut surrogates, mean with 95 % Student interval. {TRIVIAL}",
    ),
    "layer_swaps": (
        "Layer swaps",
        "Trained teachers; bars: mean over teachers with 95 % Student interval; points: single swaps.",
    ),
    "distance_matrices": ("Distance between layers", "First seed of each; max-cut phases outlined."),
    "r2_by_layer": (
        "R2 by layer and token type",
        f"Trained teachers: mean over teachers and draws ± standard deviation. {TRIVIAL}",
    ),
}


def statistics(rows: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Every table of the report from the rows of the study, by name of file."""
    fits, teachers, swaps = rows["fits"], rows["teachers"], rows["swaps"]
    return {
        "teachers": teachers,
        "correlations": statistic.correlations(fits),
        "paired": statistic.paired(fits),
        "stochastic_depth": statistic.along(fits[fits["stage"] == "trained"], "drop_path"),
        "untrained": statistic.along(fits[fits["stage"] == "untrained"], "step"),
        "training": statistic.along(statistic.of_training(fits), "drop_path", "step"),
        "swap_effects": statistic.swap_effects(swaps),
        "swaps_at_equal_gap": statistic.swaps_at_equal_gap(swaps),
        "swap_trends": statistic.swap_trends(swaps),
    }


def write_small_scale(study: Study, output: Path, title: str) -> str:
    """Write the report of a study of ``task=partitions``; returns its tables as Markdown.

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
    write_text(output / "runs.csv", table.runs_csv(study))

    source = _source(study)
    tables = []
    frames = _frames(computed)
    for name, heading in TITLES.items():
        frame = frames[name]
        if len(frame):
            caption = f"{CAPTIONS[name]} {source}."
            markdown = _shown(frame).to_markdown(index=False, disable_numparse=True)
            write_text(output / f"{name}.md", f"{markdown}\n\n{caption}\n")
            tables.append((heading, markdown, caption))
    figures = [
        (name, FIGURES[name][0], f"{FIGURES[name][1]} {source}.", figure)
        for name, figure in all_figures(found, rows, computed).items()
    ]
    write_study_page(study, output, title, tables, figures)
    return "\n\n".join(f"{heading}\n\n{markdown}" for heading, markdown, _ in tables)


def _frames(computed: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What the tables of :data:`TITLES` show: baselines, which know no k, apart from the surrogates."""
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
    """Teachers and data of the study, in words."""
    found = small_scale.runs(study)
    vits = ", ".join(f"ViTs of {layers} layers" for layers in sorted({run["teacher"]["layers"] for run in found}))
    data = ", ".join(sorted({run["data"]["name"] for run in found}))
    return f"{len(found)} teachers ({vits}), data {data}"


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    """A table for people: a value and its spread or interval in one cell; n in a column if all values share it."""
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
