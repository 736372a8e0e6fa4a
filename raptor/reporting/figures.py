"""The figures of a study, each from its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.crosstable import CrossTable
from raptor.reporting.overview import TEACHER, UNTRAINED
from raptor.reporting.style import LINES, NEUTRAL, TYPE_STYLES, fold_apart, new_figure
from raptor.reporting.table import MISSING
from raptor.runs.groups import RunGroup
from raptor.runs.study import Run, Study

Curve = NDArray[np.floating[Any]]
TITLES = {"r2_centered": "R2 centred", "r2": "R2 scalar mean"}
LONGEST = 8  # characters of a label that stands upright


def colours(count: int) -> list[str]:
    """Return colours for an ordered set, light to dark."""
    return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis_r"](np.linspace(0.15, 0.95, count))]


def cross_shares(cross: CrossTable, table: pd.DataFrame) -> Figure:
    """Draw each measure as a share of the reference's, a panel each, beside R2 (the paper's Figure 7).

    Parameters
    ----------
    cross
        Backbones against data sets; rows marked as lines are drawn across, in the order of the table.
    table
        The surrogates, from :func:`raptor.reporting.overview.rows`.
    """
    surrogates = surrogates_of(table)
    panels = len(cross.columns) + bool(len(surrogates))
    figure, axes = new_figure(2.9 * panels, 3.1, columns=panels)
    points = [key for key, row in cross.rows.items() if not row.line and key != cross.reference]
    names = [cross.rows[key].title.removeprefix("Raptor ") for key in points]
    for ax, (name, column) in zip(axes, cross.columns.items(), strict=False):
        own = cross.cells[cross.cells["column"] == name].set_index("row")
        part, unit = ("share", 100) if cross.reference else ("mean", 1)
        means, errors = (unit * own[kind].astype(float) for kind in (part, f"{part}_std" if cross.reference else "std"))
        draw_points(ax, names, *(values[points].to_numpy(np.float64) for values in (means, errors)))
        lines = {str(key): mean for key, mean in means.items() if key not in points and mean == mean}
        for (key, mean), style in zip(lines.items(), LINES, strict=False):
            ax.axhline(mean, color=NEUTRAL, ls=style, lw=1, label=cross.rows[key].title, zorder=0)
        of = f", % of {cross.rows[cross.reference].title}" if cross.reference else ""
        ax.set_title(column.title.partition(" (")[0] if of else column.title)
        ax.set_ylabel(f"{'higher' if column.higher_is_better else 'lower'} is better{of}")
        if lines:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), fontsize=7)
    if len(surrogates):
        draw_r2(axes[-1], surrogates)
    return figure


def accuracy(table: pd.DataFrame) -> Figure:
    """Draw accuracy as a share of the teacher's beside R2, over k (after the paper's Figure 7)."""
    figure, (left, right) = new_figure(7.4, 3.4, columns=2)
    surrogates = surrogates_of(table)
    labels = surrogates["backbone"].tolist()
    shares, errors = (100 * surrogates[f"relative_{part}"].to_numpy(dtype=float) for part in ("mean", "std"))
    left.set_ylabel("probe accuracy, % of the teacher's")
    if np.isfinite(shares).any():
        draw_points(left, labels, shares, errors)
        for label, style in ((TEACHER, "-"), (UNTRAINED, "--")):
            for share in 100 * table.loc[table["backbone"] == label, "relative_mean"].astype(float).dropna():
                left.axhline(share, color=NEUTRAL, ls=style, lw=1, label=label, zorder=0)
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    else:
        draw_points(left, labels, np.full(len(labels), np.nan), np.full(len(labels), np.nan))
        left.set_yticks([])
        left.text(0.5, 0.5, "no probe of teacher and surrogate", ha="center", transform=left.transAxes, color=NEUTRAL)
    draw_r2(right, surrogates)
    return figure


def surrogates_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of surrogates."""
    return table[table["backbone"].str.startswith("k=")] if len(table) else table


def draw_points(ax: Axes, names: Sequence[str], means: Curve, errors: Curve) -> None:
    """Draw means with standard deviations as points, which an axis that does not begin at 0 leaves true."""
    for i, (mean, error, colour) in enumerate(zip(means, errors, colours(len(means)), strict=True)):
        if mean == mean:
            ax.errorbar(i, mean, yerr=error if error == error else None, fmt="D", ms=6, color=colour, capsize=4)
        else:
            ax.text(i, 0.03, MISSING, ha="center", rotation=90, color=NEUTRAL, transform=ax.get_xaxis_transform())
    name_ticks(ax, names)
    ax.margins(y=0.2)


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Label a horizontal axis with names, upright where they are long."""
    upright = max(map(len, names), default=0) > LONGEST
    ax.set_xticks(range(len(names)), fold_apart(names), rotation=90 if upright else 0)
    ax.tick_params(axis="x", labelsize=7 if upright else 9)
    ax.set_xlim(-0.6, len(names) - 0.4)


def draw_r2(ax: Axes, surrogates: pd.DataFrame) -> None:
    """Draw R2 by token type as bars that start at 0, what the mean image scores where R2 is centred."""
    measure = "r2_centered" if surrogates[[f"r2_centered_{k}_n" for k in TOKEN_TYPES]].to_numpy().any() else "r2"
    x = np.arange(len(surrogates))
    lowest = 0.0
    for offset, kind in zip((-0.26, 0.0, 0.26), TOKEN_TYPES, strict=True):
        mean, std = (surrogates[f"{measure}_{kind}_{part}"].to_numpy(dtype=float) for part in ("mean", "std"))
        if np.isfinite(mean).any():
            style = TYPE_STYLES[kind]
            bars = {"color": style["color"], "hatch": style["hatch"], "edgecolor": "white", "label": kind}
            spread = std if np.isfinite(std).any() else None
            ax.bar(x + offset, mean, 0.24, yerr=spread, capsize=2, **bars)
            lowest = min(lowest, float(np.nanmin(mean)))
        for i in np.flatnonzero(~np.isfinite(mean) & (surrogates[f"{measure}_{kind}_expected"].to_numpy() > 0)):
            ax.text(i + offset, 0.02, MISSING, ha="center", rotation=90, color=NEUTRAL, fontsize=7)
    ax.set_ylim(1.1 * lowest, 1.0)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_ylabel(f"{TITLES[measure]}, mean over layers")
    name_ticks(ax, surrogates["backbone"].tolist())
    if ax.containers:
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    else:
        ax.text(0.5, 0.5, "no R2 was measured", ha="center", transform=ax.transAxes, color=NEUTRAL)


def training_curves(study: Study, surrogates: Sequence[RunGroup]) -> Figure:
    """Draw the training loss of the teacher, of each block of stage 1, and of each surrogate of stage 2."""
    figure, axes = new_figure(10.2, 3.4, columns=3)
    for group in study.groups("classifier"):
        for (name, what), kind in zip(
            {"train/loss": "training images", "val/loss": "held-out images"}.items(), ("cls", "patches"), strict=True
        ):
            style = {key: TYPE_STYLES[kind][key] for key in ("color", "ls")}
            draw_seeds(axes[0], curves_of(group, name), style, f"{group.label}, {what}")
    stage1 = study.groups("distill")
    phases = sorted({tuple(phase) for run in study.of_task("distill") for phase in run["model"].get("phases", [])})
    for i, ((start, end), colour) in enumerate(zip(phases, colours(len(phases)), strict=True)):
        for group in stage1:
            label = f"{start}-{end}" + (f", {group.label}" if len(stage1) > 1 else "")
            style = {"color": colour, "ls": LINES[i % len(LINES)]}
            draw_seeds(axes[1], curves_of(group, f"train/{start}-{end}/loss"), style, label)
    for i, (group, colour) in enumerate(zip(surrogates, colours(len(surrogates)), strict=True)):
        style = {"color": colour, "ls": LINES[i % len(LINES)]}
        draw_seeds(axes[2], curves_of(group, "train/loss"), style, group.label)
    titles = ("teacher: cross-entropy", "stage 1: loss by phase", "stage 2: loss by surrogate")
    for ax, title, scale in zip(axes, titles, ("linear", "log", "log"), strict=True):
        ax.set(title=title, xlabel="step", yscale=scale)
        if ax.lines:
            ax.legend(fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
        else:
            ax.text(0.5, 0.5, "no finished run with a curve", ha="center", transform=ax.transAxes, color=NEUTRAL)
    return figure


def curves_of(group: RunGroup, name: str) -> list[Curve]:
    """Return a training curve ``(points, 2)`` of each finished run that has it, over steps."""

    def read(run: Run) -> Any:
        curve = run.get("history", {}).get(name)
        return curve if curve is not None and len(curve) else None

    return [curve for repeats in group.by_seed(read) for curve in repeats]


def draw_seeds(ax: Axes, curves: Sequence[Curve], style: dict[str, Any], label: str) -> None:
    """Draw runs as thin lines and their mean as a thick one, at the steps that all of them have."""
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            ax.plot(*curve.T, **{**style, "marker": None, "ls": "-"}, lw=0.7, alpha=0.45)
    by_step = [dict(curve.tolist()) for curve in curves]
    steps = sorted(set.intersection(*(set(values) for values in by_step)))  # logged at other steps, they share some
    if steps:
        mean = [float(np.mean([values[step] for values in by_step])) for step in steps]
        ax.plot(steps, mean, **style, lw=1.6, label=label)
