"""The figures of a study, each from its results."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raptor.reporting.crosstable import CrossTable
from raptor.reporting.style import NEUTRAL, TYPE_COLOURS, legend_beside, new_figure
from raptor.runs.study import Study


def colours(count: int) -> list[str]:
    """Colours for an ordered set, light to dark."""
    return [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["viridis_r"](np.linspace(0.15, 0.95, count))]


def cross_bars(cross: CrossTable, table: pd.DataFrame) -> Figure:
    """Each measure as a share of the reference's, a panel each, beside R2 (the paper's Figure 7).

    Parameters
    ----------
    cross
        Backbones against data sets; rows marked as lines are drawn across, in the order of the table.
    table
        The surrogates, from :func:`raptor.reporting.table.rows`.
    """
    surrogates = _surrogates(table)
    panels = len(cross.columns) + bool(len(surrogates))
    figure, axes = new_figure(2.9 * panels, 3.1, columns=panels)
    bars = [key for key, row in cross.rows.items() if not row.line and key != cross.reference]
    for ax, (name, column) in zip(axes, cross.columns.items(), strict=False):
        own = cross.cells[cross.cells["column"] == name].set_index("row")
        part, unit = ("share", 100) if cross.reference else ("mean", 1)
        means, errors = (unit * own[kind].astype(float) for kind in (part, f"{part}_std" if cross.reference else "std"))
        shown = means[bars].fillna(0)
        ax.bar(range(len(bars)), shown, 0.6, yerr=errors[bars].fillna(0), color=colours(len(bars)), capsize=3)
        lines = {str(key): mean for key, mean in means.items() if key not in bars and mean == mean}
        drawn = [
            *lines.values(),
            *(v + s * e for v, e in zip(shown, errors[bars].fillna(0), strict=True) for s in (-1, 1)),
        ]
        drawn = [value for value in drawn if value > 0] or [1.0]
        margin = 0.25 * (max(drawn) - min(drawn)) or 1.0
        ax.set_ylim(max(0.0, min(drawn) - margin), max(drawn) + margin / 2)
        for key, style in zip(lines, ("--", "-", ":", "-."), strict=False):
            ax.axhline(lines[key], color=NEUTRAL, ls=style, lw=1, label=cross.rows[key].title, zorder=0)
        names = [cross.rows[key].title.removeprefix("Raptor ") for key in bars]
        ax.set_xticks(range(len(bars)), names, rotation=90 if max(map(len, names), default=0) > 8 else 0)
        for i, key in enumerate(bars):
            if means[key] != means[key]:
                ax.text(i, ax.get_ylim()[0] + margin / 4, "missing", ha="center", rotation=90, color=NEUTRAL)
        of = f", % of {cross.rows[cross.reference].title}" if cross.reference else ""
        ax.set_title(column.title.partition(" (")[0] if of else column.title)
        ax.set_ylabel(f"{'higher' if column.higher_is_better else 'lower'} is better{of}")
        if lines:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), fontsize=7)
    if len(surrogates):
        _r2_bars(axes[-1], surrogates)
    return figure


def _surrogates(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["backbone"].str.startswith("k=")] if len(table) else table


def _r2_bars(ax: Axes, surrogates: pd.DataFrame) -> None:
    x = np.arange(len(surrogates))
    for offset, kind in zip((-0.26, 0.0, 0.26), TYPE_COLOURS, strict=True):
        mean, std = (surrogates[f"r2_{kind}_{part}"].astype(float) for part in ("mean", "std"))
        if mean.notna().any():
            ax.bar(x + offset, mean, 0.24, yerr=std.fillna(0), color=TYPE_COLOURS[kind], capsize=2, label=kind)
    values = surrogates[[f"r2_{kind}_mean" for kind in TYPE_COLOURS]].astype(float).to_numpy()
    ax.set_ylim(min(0.5, float(np.nanmin(values, initial=1.0)) - 0.05), 1.0)
    ax.set_ylabel("R2, mean over layers")
    ax.set_xticks(x, surrogates["backbone"].tolist())
    ax.set_xlabel("blocks of the surrogate")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def accuracy_bars(table: pd.DataFrame) -> Figure:
    """Accuracy as a share of the teacher's beside R2, over k, with seed error bars (after the paper's Figure 7)."""
    figure, (left, right) = new_figure(7.4, 3.1, columns=2)
    surrogates = _surrogates(table)
    x = np.arange(len(surrogates))
    shares, errors = (100 * surrogates[f"relative_{part}"].astype(float).fillna(0) for part in ("mean", "std"))
    left.bar(x, shares, 0.6, yerr=errors, color=colours(len(x)), capsize=3)
    lowest = float(min([*(shares - errors)[shares > 0], 91.0]))
    left.set_ylim(5 * np.floor((lowest - 0.5) / 5), 101.5)
    for label, style in (("teacher", "-"), ("untrained", "--")):
        for share in 100 * table.loc[table["backbone"] == label, "relative_mean"].dropna():
            name = label if share >= left.get_ylim()[0] else f"{label} (below, at {share:.0f} %)"
            left.plot([-0.5, len(x) - 0.5], [share, share], color=NEUTRAL, ls=style, lw=1, label=name, zorder=0)
    left.set_ylabel("probe accuracy, % of the teacher's")
    left.set_xticks(x, surrogates["backbone"].tolist())
    left.set_xlabel("blocks of the surrogate")
    if (shares > 0).any():
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    else:
        left.text(0.5, 0.5, "no probe of teacher and surrogate", ha="center", transform=left.transAxes, color=NEUTRAL)
    _r2_bars(right, surrogates)
    return figure


def r2_by_layer(study: Study) -> Figure:
    """R2 of every layer by token type, one panel for each k; thin lines are seeds, dotted lines the boundaries."""
    surrogates = study.surrogates()
    figure, axes = new_figure(2.5 * len(surrogates) + 0.6, 2.8, columns=len(surrogates))
    values = []
    for ax, (label, runs) in zip(axes, surrogates.items(), strict=True):
        for kind, colour in TYPE_COLOURS.items():
            found = [next(iter(run["layers"].values()))["r2"].get(kind, []) for run in runs]
            values += [value for curve in found for value in curve if value is not None]
            _lines(ax, [list(enumerate(curve, start=1)) for curve in found], colour, kind)
        for boundary in runs[0]["model"]["boundaries"]:
            ax.axvline(boundary + 0.5, color=NEUTRAL, lw=0.8, ls=":")
        ax.set(title=label, xlabel="layer")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for ax in axes:
        ax.set_ylim(max(-0.1, min([0.5, *(value - 0.05 for value in values)])), 1.0)
    axes[0].set_ylabel("R2 to the teacher")
    legend_beside(axes[-1])
    return figure


def training_curves(study: Study) -> Figure:
    """Training loss of the teacher, of each block of stage 1, and of each surrogate of stage 2."""
    figure, axes = new_figure(10.2, 3.4, columns=3)
    for run in study.of_task("classifier"):
        _lines(axes[0], [run["history"].get("train/loss", [])], TYPE_COLOURS["cls"], "training images")
        _lines(axes[0], [run["history"].get("val/loss", [])], TYPE_COLOURS["patches"], "held-out images")
    stage1 = study.of_task("distill")
    phases = sorted({tuple(phase) for run in stage1 for phase in run["model"]["phases"]})
    for (start, end), colour in zip(phases, colours(len(phases)), strict=True):
        name = f"train/{start}-{end}/loss"
        _lines(axes[1], [r["history"][name] for r in stage1 if name in r["history"]], colour, f"{start}-{end}")
    stage2 = study.surrogates()
    for (label, runs), colour in zip(stage2.items(), colours(len(stage2)), strict=True):
        curves = [run["history"]["train/loss"] for run in runs if "train/loss" in run["history"]]
        _lines(axes[2], curves, colour, label)
    titles = ("teacher: cross-entropy", "stage 1: loss by phase", "stage 2: loss by k")
    for ax, title, scale in zip(axes, titles, ("linear", "log", "log"), strict=True):
        ax.set(title=title, xlabel="step", yscale=scale)
        if ax.lines:
            ax.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
        else:
            ax.text(0.5, 0.5, "no such run", ha="center", transform=ax.transAxes, color=NEUTRAL)
    return figure


def _lines(ax: Axes, curves: Sequence[Sequence[Sequence[float]]], colour: str, label: str) -> None:
    """Seeds as thin lines, their mean as a thick one."""
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            ax.plot(*zip(*curve, strict=True), color=colour, lw=0.7, alpha=0.45)
    length = min(len(curve) for curve in curves)
    x = [point[0] for point in curves[0][:length]]
    mean = np.mean([[point[1] for point in curve[:length]] for curve in curves], axis=0)
    ax.plot(x, mean, color=colour, lw=1.6, label=label)
