"""Fidelity by layer: a panel for each surrogate and token type, with the floors that it must exceed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.style import LINES, NEUTRAL, TYPE_STYLES, fold_apart, legend_beside, new_figure
from raptor.reporting.table import MISSING
from raptor.runs.groups import RunGroup
from raptor.runs.study import Run

LOWEST = -1.0  # R2 below is cut off, and marked so
TITLES = {"r2_centered": "R2 centred", "r2": "R2 scalar mean"}
FLOORS = {  # of raptor.tasks.distillation.floors
    "mean": "mean image",
    "layer_0": "layer 0 held",
    "phase_start": "phase start held",
    "affine": "affine map of layer 0",
}


def measure_of(groups: Sequence[RunGroup]) -> str:
    """Return the measure that a figure shows: R2 centred where a run has it."""
    has_it = any(layers_of(run, "r2_centered", kind) for group in groups for run in group.runs for kind in TOKEN_TYPES)
    return "r2_centered" if has_it else "r2"


def layers_of(run: Run, measure: str, kind: str) -> list[float | None] | None:
    """Return a measure of a surrogate at the layers 1..L, None where it was not measured."""
    students = run.get("layers")
    first = next(iter(students.values()), None) if isinstance(students, dict) else None
    curve = first.get(measure, {}).get(kind) if isinstance(first, dict) else None
    return list(curve) or None if curve is not None else None


def floors_of(run: Run, kind: str) -> dict[str, list[float | None]]:
    """Return R2 centred of each trivial prediction at the layers 1..L, by its name."""
    floors = run.get("floors")
    found = {name: by.get(kind) for name, by in floors.items()} if isinstance(floors, dict) else {}
    return {name: list(curve) for name, curve in found.items() if curve}


def r2_by_layer(groups: Sequence[RunGroup]) -> Figure:
    """Draw R2 of every layer, a row of panels for each token type and a column for each surrogate."""
    measure = measure_of(groups)
    kinds = [k for k in TOKEN_TYPES if any(layers_of(run, measure, k) for group in groups for run in group.runs)]
    kinds = kinds or list(TOKEN_TYPES[:1])
    figure, axes = new_figure(2.4 * len(groups) + 1.6, 2.0 * len(kinds) + 0.6, columns=len(groups), rows=len(kinds))
    grid = np.array(axes, dtype=object).reshape(len(kinds), len(groups))
    lowest = 0.0
    for row, kind in zip(grid, kinds, strict=True):
        for ax, group in zip(row, groups, strict=True):
            lowest = min(lowest, _draw(ax, group, measure, kind))
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        row[0].set_ylabel(f"{kind}\n{TITLES[measure]}")
    for ax in axes:
        ax.set_ylim(max(LOWEST, lowest - 0.05), 1.0)
        ax.axhline(0, color="black", lw=0.5)
    for ax, title in zip(grid[0], fold_apart([group.label for group in groups]), strict=True):
        ax.set_title(title, fontsize=9 if len(title) < 16 else 7)
    for ax in grid[-1]:
        ax.set_xlabel("layer")
    _legend(grid[0][-1], groups, measure, kinds)
    return figure


def _draw(ax: Axes, group: RunGroup, measure: str, kind: str) -> float:
    """Draw seeds, their mean, the floors and the boundaries; returns the lowest value that is drawn."""
    style = {key: TYPE_STYLES[kind][key] for key in ("color", "ls", "marker")}
    curves = by_seed(group, measure, kind)
    if curves is None:
        ax.text(0.5, 0.75, MISSING, ha="center", transform=ax.transAxes, color=NEUTRAL)
        ax.set_xlim(0.5, 1.5)  # no ticks but whole layers
        return 0.0
    x = np.arange(1, curves.shape[1] + 1)
    if len(curves) > 1:
        ax.plot(x, curves.T, color=style["color"], lw=0.6, alpha=0.4)
    values = [curves]
    ax.plot(x, mean_of(curves), **style, ms=3, lw=1.5)
    for name, dashes in zip(floor_names(group.runs) if measure == "r2_centered" else (), LINES, strict=False):
        floor = stack([floors_of(run, kind).get(name) for run in group.runs])
        if floor is not None:
            ax.plot(np.arange(1, floor.shape[1] + 1), mean_of(floor), color="black", ls=dashes, lw=0.9)
            values.append(floor)
    boundaries = group.runs[0]["model"].get("boundaries")
    for boundary in boundaries if isinstance(boundaries, list) else []:
        ax.axvline(boundary + 0.5, color=NEUTRAL, lw=0.8, ls=":")
    return float(np.nanmin([np.nanmin(v, initial=0.0) for v in values]))


def by_seed(group: RunGroup, measure: str, kind: str) -> NDArray[np.float64] | None:
    """Return a curve for each distinct seed ``(seeds, L)``: the mean over repeats; None where no run has one."""
    found = [stack(repeats) for repeats in group.by_seed(lambda run: layers_of(run, measure, kind))]
    return stack([mean_of(curves) for curves in found if curves is not None])


def mean_of(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the first axis of what is a number; NaN where nothing is."""
    return np.asarray(np.ma.masked_invalid(curves).mean(axis=0).filled(np.nan))


def stack(curves: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return curves of the commonest length one above the other, None where no number is in them."""
    arrays = [np.array(curve, dtype=float) for curve in curves if curve is not None]
    lengths = [len(array) for array in arrays]
    same = [array for array in arrays if len(array) == max(lengths, key=lengths.count)]
    stacked = np.stack(same) if same else np.empty((0, 0))
    return stacked[~np.isnan(stacked).all(axis=1)] if np.isfinite(stacked).any() else None


def floor_names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the floors that runs were compared with."""
    return list(dict.fromkeys(name for run in runs for kind in TOKEN_TYPES for name in floors_of(run, kind)))


def _legend(ax: Axes, groups: Sequence[RunGroup], measure: str, kinds: Sequence[str]) -> None:
    styles: dict[str, dict[str, Any]] = {
        f"surrogate, {kind}": {key: TYPE_STYLES[kind][key] for key in ("color", "ls", "marker")} | {"ms": 3, "lw": 1.5}
        for kind in kinds
    }
    if measure == "r2_centered":
        names = floor_names([run for group in groups for run in group.runs])
        styles |= {f"floor: {FLOORS.get(name, name)}": {"ls": ls} for name, ls in zip(names, LINES, strict=False)}
    if any(len(group.runs) > 1 for group in groups):
        styles["one seed"] = {"lw": 0.6, "alpha": 0.4}
    styles["phase boundary"] = {"color": NEUTRAL, "ls": ":", "lw": 0.8}
    legend_beside(ax, styles, fontsize=7)
