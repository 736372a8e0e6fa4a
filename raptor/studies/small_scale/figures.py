"""The figures of the small-scale study, each from the rows and statistics of :mod:`raptor.studies.small_scale.rows`."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from raptor.partition.phases import phases_of
from raptor.reporting.style import NEUTRAL, TYPE_COLOURS, legend_beside, new_figure
from raptor.runs.study import Run
from raptor.studies.small_scale import rows as small_scale
from raptor.studies.small_scale.rows import MEASURES, SCORES, SIDES
from raptor.studies.small_scale.statistics import scores_of

KIND_COLOURS = {"maxcut": "#2b6ca3", "equal": "#1f9e89", "random": "#d08a2e", "shuffled": "#8a6bb1"}
SIDE_COLOURS = {"intra": "#2b6ca3", "inter": "#b5442e"}
MARKERS = {"trained": "o", "checkpoint": "^", "untrained": "s"}
LINES = {1: ":", 2: "-", 3: "--", 4: "-."}
FILLS = ("full", "none", "left", "top")  # of markers, by k
BASELINE_NAMES = {"embedding": "layer 0 held", "mean": "mean image"}
BASELINE_LINES = {"embedding": (0, (1, 3)), "mean": (0, (5, 2, 1, 2))}
STEPS_APART = 0.16


def scatter(fits: pd.DataFrame) -> Figure:
    """R2 of class token and patches against each phase measure; one point for each teacher and k, max-cut."""
    figure, axes = new_figure(10.0, 3.9, columns=3)
    best = fits[(fits["kind"] == "maxcut") & (fits["k"] > 1)]
    colour = colours_of(best["drop_path"])
    fills = dict(zip(sorted(best["k"].unique()), itertools.cycle(FILLS), strict=False))
    score = next((name for name in scores_of(fits) if name.startswith("r2_")), "r2_patches")
    for ax, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for (stage, rate, k), group in best.groupby(["stage", "drop_path", "k"], dropna=False):
            style: dict[str, Any] = {
                "color": colour.get(rate, NEUTRAL),
                "marker": MARKERS[str(stage)],
                "fillstyle": fills[k],
            }
            ax.plot(group[measure], group[score], ls="", ms=5, **style)
        ax.set(xlabel=title)
    axes[0].set_ylabel(f"{SCORES[score]}, mean over layers")
    shown: list[dict[str, Any]] = [{"color": shade, "label": f"drop rate {rate:g}"} for rate, shade in colour.items()]
    shown += [{"marker": MARKERS[stage], "label": stage} for stage in MARKERS if (best["stage"] == stage).any()]
    shown += [{"fillstyle": fill, "label": f"k={k}"} for k, fill in fills.items()]
    for entry in shown:
        drawn: dict[str, Any] = {"color": NEUTRAL, "marker": "o", "ls": "", "ms": 5} | entry
        axes[-1].plot([], [], **drawn)
    legend_beside(axes[-1], fontsize=7)
    return figure


def colours_of(rates: pd.Series) -> dict[Any, Any]:
    """Choose a colour for each drop rate, from light to dark."""
    known = sorted(rates.dropna().unique())
    return {rate: matplotlib.colormaps["viridis_r"](0.1 + 0.85 * (i + 1) / len(known)) for i, rate in enumerate(known)}


def forest(correlations: pd.DataFrame) -> Figure:
    """Spearman correlation of each measure with each score and its interval, a panel for each set of rows."""
    names = list(dict.fromkeys(correlations["over"]))
    figure, axes = new_figure(3.1 * len(names) + 1.2, 4.6, columns=len(names))
    pairs = list(dict.fromkeys(zip(correlations["measure"], correlations["score"], strict=True)))
    for ax, name in zip(axes, names, strict=True):
        for i, (k, group) in enumerate(correlations[correlations["over"] == name].groupby("k")):
            estimates = group.set_index(["measure", "score"]).reindex(pairs)
            y = np.arange(len(pairs)) + STEPS_APART * i
            errors = [
                estimates["spearman"] - estimates["spearman_low"],
                estimates["spearman_high"] - estimates["spearman"],
            ]
            label = f"k={k}, n={int(group['n'].max())}"
            ax.errorbar(estimates["spearman"], y, xerr=np.clip(errors, 0, None), fmt="o", ms=3, lw=1, label=label)
        ax.axvline(0, color=NEUTRAL, lw=0.8)
        ax.set(title=textwrap.fill(name, 28), xlim=(-1.05, 1.05), xlabel="Spearman, 95 % interval")
        ax.set_yticks(
            range(len(pairs)), [f"{m} · {SCORES[s]}" for m, s in pairs] if ax is axes[0] else [""] * len(pairs)
        )
        ax.set_ylim(len(pairs) - 0.4, -0.6)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=7)
        ax.title.set_fontsize(8)
    return figure


def paired(differences: pd.DataFrame, statistics: pd.DataFrame) -> Figure:
    """Max-cut less random and less shuffled for each trained and untrained teacher, with mean and interval."""
    shown = [s for s in SCORES if s != "kept" and (statistics["score"] == s).any()]
    figure, axes = new_figure(10.0, 3.7, columns=len(shown), top=0.94)
    groups = [
        (stage, k, against)
        for stage in ("trained", "untrained")
        for k in sorted(differences["k"].unique())
        for against in KIND_COLOURS
        if len(_of(differences, stage=stage, k=k, against=against))
    ]
    for ax, score in zip(axes, shown, strict=True):
        for x, (stage, k, against) in enumerate(groups):
            values = _of(differences, stage=stage, k=k, against=against, score=score)["difference"]
            mean, ci95 = _of(statistics, stage=stage, k=k, against=against, score=score)[["mean", "ci95"]].iloc[0]
            jitter = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(len(values))
            ax.scatter(x + jitter, values, s=9, color=KIND_COLOURS[against], alpha=0.55)
            ax.errorbar([x + 0.25], [mean], yerr=[ci95], fmt="D", ms=3.5, lw=1.2, color="#222222", capsize=2)
        ax.axhline(0, color=NEUTRAL, lw=0.8)
        names = [f"k={k}, {against}{'*' if stage == 'untrained' else ''}" for stage, k, against in groups]
        ax.set_xticks(range(len(groups)), names, rotation=60, ha="right", fontsize=7)
        ax.set_title(f"{SCORES[score]}: max-cut less other")
    if any(stage == "untrained" for stage, *_ in groups):
        figure.text(0.99, 0.965, "* untrained control", fontsize=8, color=NEUTRAL, ha="right")
    return figure


def along(table: pd.DataFrame, by: str, control: pd.DataFrame) -> Figure:
    """Teachers and max-cut surrogates by rate of stochastic depth or by step, mean and 95 % interval over seeds.

    Parameters
    ----------
    table
        Of :func:`raptor.studies.small_scale.statistics.summarize_by`.
    by
        ``"drop_path"`` or ``"step"``; by step there are lines for each drop rate.
    control
        The same of the untrained teachers, drawn across; may be empty.
    """
    panels = {
        "teacher_top1": "teacher's top-1",
        "adjacent": "distance of adjacent layers",
        "r2_cls": "R2 cls",
        "r2_patches": "R2 patches",
        "kept": "accuracy kept",
    }
    panels = {name: title for name, title in panels.items() if f"{name}_mean" in table}
    figure, axes = new_figure(12.0, 3.4, columns=len(panels))
    steps = sorted(table["step"].unique()) if by == "step" else []
    colours, smallest = colours_of(table["drop_path"]) if steps else {}, table["k"].min()
    groups: Any = table.groupby(["k", "drop_path"] if steps else ["k"], dropna=False)
    for ax, (name, title) in zip(axes, panels.items(), strict=True):
        of_teacher = name in ("teacher_top1", "adjacent")  # does not depend on k
        for (k, *rate), group in groups:
            if of_teacher and k != smallest:
                continue
            x = [steps.index(step) for step in group[by]] if steps else group[by]
            colour, label = KIND_COLOURS["maxcut"], f"k={k}"
            if len(colours) > 1:
                colour, label = colours[rate[0]], f"k={k}, drop rate {rate[0]:g}"
            half = group[f"{name}_ci95"].fillna(0)
            style: dict[str, Any] = {"ls": LINES.get(k, "-"), "color": colour, "marker": "o", "ms": 3, "capsize": 2}
            ax.errorbar(x, group[f"{name}_mean"], yerr=half, label=label, **style)
            for baseline, dashes in BASELINE_LINES.items():
                level = f"{baseline}_{name.removeprefix('r2_')}_mean"
                if level in group and k == smallest:
                    ax.plot(x, group[level], ls=dashes, lw=1, color=colour if len(colours) > 1 else "black")
        for _, row in control.dropna(subset=f"{name}_mean").iterrows() if f"{name}_mean" in control else []:
            if not of_teacher or row["k"] == smallest:
                style = {"ls": LINES.get(row["k"], "-"), "color": NEUTRAL, "lw": 1}
                ax.axhline(row[f"{name}_mean"], label=f"untrained, k={row['k']:g}", **style)
        if steps:
            ax.set_xticks(range(len(steps)), [f"{step:g}" for step in steps])
        ax.set(title=title, xlabel="step of the teacher" if steps else "drop rate")
    for baseline, dashes in BASELINE_LINES.items():
        if table.columns.str.startswith(f"{baseline}_").any():
            axes[-1].plot([], [], ls=dashes, lw=1, color="black", label=BASELINE_NAMES[baseline])
    legend_beside(axes[-1], fontsize=7, handlelength=4)
    return figure


def swap_bars(effects: pd.DataFrame, swaps: pd.DataFrame) -> Figure:
    """Accuracy kept by swaps within and across phases, by their number of layers, and against distance and depth."""
    figure, axes = new_figure(10.0, 3.6, columns=3)
    own = _of(effects, stage="trained", score="kept")
    for offset, side in ((-0.18, "intra"), (0.18, "inter")):
        axes[0].bar(
            own["size"] + offset,
            100 * own[side],
            0.34,
            yerr=100 * own[f"{side}_ci95"],
            color=SIDE_COLOURS[side],
            capsize=3,
            label=SIDES[side],
        )
    lowest = (own[["intra", "inter"]].min(axis=1) - own[["intra_ci95", "inter_ci95"]].max(axis=1).fillna(0)).min()
    axes[0].set_ylim(max(0.0, 100 * lowest - 3) if len(own) else 0.0)
    axes[0].set_xticks(own["size"].tolist())
    axes[0].set(xlabel="layers replaced", ylabel="accuracy kept, % of the teacher's")
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    trained = _of(swaps, stage="trained")
    for ax, (column, what) in zip(
        axes[1:], {"distance": "distance between the layers", "gap": "layers between them"}.items(), strict=True
    ):
        for side, colour in SIDE_COLOURS.items():
            part = _of(trained, side=side)
            ax.scatter(part[column], 100 * part["kept"].astype(float), s=7, alpha=0.35, color=colour)
        ax.set(xlabel=f"{what}, mean of the swap")
    return figure


def matrices(runs: Sequence[Run], k: int) -> Figure:
    """Distance matrices of one teacher of each kind (first seed), with the max-cut phases outlined."""
    chosen: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run["model"]["tags"]["seed"], run["name"])):
        tags = run["model"]["tags"]
        if tags["stage"] != "checkpoint":
            name = "untrained" if tags["stage"] == "untrained" else f"drop rate {tags['drop_path']:g}"
            chosen.setdefault(name, run)
    chosen = dict(sorted(chosen.items()))
    figure, axes = new_figure(2.5 * len(chosen) + 0.7, 3.3, columns=len(chosen))
    top = max(np.max(run["distance"]) for run in chosen.values())
    for ax, (name, run) in zip(axes, chosen.items(), strict=True):
        L = len(run["distance"])
        image = ax.imshow(run["distance"], cmap="magma_r", extent=(0.5, L + 0.5, L + 0.5, 0.5), vmin=0, vmax=top)
        best = run["teacher_measures"]["maxcut"][str(k)]["labels"]
        cuts = [i for i in range(1, L) if best[i] != best[i - 1]]
        for start, end in phases_of(cuts, L):
            corner, size = (start + 0.5, start + 0.5), end - start
            ax.add_patch(Rectangle(corner, size, size, fill=False, ec="#1f9e89", lw=2))
        ax.set_title(
            f"{name}, seed {run['model']['tags']['seed']}\nk={k}: cut after {', '.join(map(str, cuts))}", fontsize=8
        )
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.spines[["top", "right"]].set_visible(True)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="1 - cosine", shrink=0.8)
    return figure


def by_layer(layers: pd.DataFrame) -> Figure:
    """R2 of every layer by token type, trained teachers: mean over teachers for each kind of partition, k by panel."""
    shown = layers[layers["stage"] == "trained"] if (layers["stage"] == "trained").any() else layers
    panels = [
        (k, kind)
        for k in sorted(shown.loc[shown["k"] > 0, "k"].unique())
        for kind in TYPE_COLOURS
        if (shown["type"] == kind).any()
    ]
    figure, axes = new_figure(2.1 * len(panels) + 1.0, 3.1, columns=len(panels))
    for ax, (k, kind) in zip(axes, panels, strict=True):
        for partition, colour in KIND_COLOURS.items():
            part = _of(shown, k=k, type=kind, kind=partition).groupby("layer")["r2"]
            if len(part):
                mean, half = part.mean(), part.std().fillna(0)
                ax.plot(mean.index, mean, color=colour, lw=1.4, label=partition)
                ax.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.15, lw=0)
        for baseline, dashes in BASELINE_LINES.items():
            part = _of(shown, type=kind, kind=baseline).groupby("layer")["r2"]
            if len(part):
                ax.plot(part.mean(), color="black", ls=dashes, lw=1, label=BASELINE_NAMES[baseline])
        ax.set(title=f"k={k}, {kind}", xlabel="layer")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        share_y(ax, axes[0])
    axes[0].set_ylabel("R2 to the teacher")
    legend_beside(axes[-1], fontsize=7)
    return figure


def share_y(ax: Axes, first: Axes) -> None:
    """Give an axis the vertical scale of the first."""
    if ax is not first:
        ax.sharey(first)


def _of(frame: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    for column, value in wanted.items():
        frame = frame[frame[column] == value] if len(frame) else frame
    return frame


def all_figures(
    runs: Sequence[Run], rows: Mapping[str, pd.DataFrame], tables: Mapping[str, pd.DataFrame]
) -> dict[str, Figure]:
    """Every figure for which there are runs, by name of file."""
    fits, trained = rows["fits"], (rows["fits"]["stage"] == "trained").any()
    figures = {"correlation_scatter": scatter(fits), "correlations": forest(tables["correlations"])}
    if len(tables["paired"]):
        figures["maxcut_against_others"] = paired(rows["paired_differences"], tables["paired"])
    control = tables["untrained"]
    if trained:
        figures["stochastic_depth"] = along(tables["stochastic_depth"], "drop_path", control)
    if (fits["stage"] != "trained").any():
        figures["training"] = along(tables["training"], "step", control)
    if len(tables["swap_effects"]) and trained:
        figures["layer_swaps"] = swap_bars(tables["swap_effects"], rows["swaps"])
    k = min(3, max(int(k) for k in runs[0]["teacher_measures"]["maxcut"]))
    figures["distance_matrices"] = matrices(runs, k)
    figures["r2_by_layer"] = by_layer(small_scale.layers(runs))
    return figures
