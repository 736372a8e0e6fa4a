"""Draw every method on every measure, with the floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raptor.reporting.style import LINES, NEUTRAL, new_figure
from raptor.studies.controls.rows import FLOORS, METHODS, TIED

PANELS = {
    "probe": "linear probe, top-1 (%)",
    "r2_cls": "R2 centred cls",
    "r2_patches": "R2 centred patches",
    "r2_cls_last": "R2 cls, last layer",
}
TIED_COLOUR, RIVAL_COLOUR, OTHER_COLOUR = "#d55e00", "#0072b2", NEUTRAL
LOWEST = -1.0  # R2 below is drawn at the edge


def by_method(
    summary: pd.DataFrame,
    floors: pd.DataFrame,
    references: Mapping[str, Sequence[float]],
    k: int,
    others: Sequence[str],
) -> Figure:
    """Draw a row for each method and a panel for each measure.

    Parameters
    ----------
    summary, floors
        Of :mod:`raptor.studies.controls.statistics`, all k.
    references
        Probe accuracies of the teacher and of an untrained network.
    k
        Number of tied blocks.
    others
        Methods that have other parameters, in grey.
    """
    own, of_k = summary[summary["k"] == k].set_index("method"), floors[floors["k"] == k].set_index("method")
    methods = [method for method in METHODS if method in own.index][::-1]
    figure, axes = new_figure(11.0, 0.27 * len(methods) + 1.6, columns=len(PANELS))
    for ax, (measure, title) in zip(axes, PANELS.items(), strict=True):
        scale = 100.0 if measure == "probe" else 1.0
        for y, method in enumerate(methods):
            mean, ci95 = (scale * float(own[f"{measure}_{part}"][method]) for part in ("mean", "ci95"))
            colour = OTHER_COLOUR if method in others else TIED_COLOUR if method == TIED else RIVAL_COLOUR
            if mean != mean:
                continue
            low = measure != "probe" and mean < LOWEST
            error = None if low or ci95 != ci95 else ci95
            ax.errorbar(LOWEST if low else mean, y, xerr=error, fmt="<" if low else "o", ms=5, color=colour)
        tied = scale * float(own[f"{measure}_mean"][TIED])
        ax.axvline(tied, color=TIED_COLOUR, lw=0.7, zorder=0)
        if measure == "probe":
            lines = {name: 100 * sum(values) / len(values) for name, values in references.items()}
        else:
            lines = {FLOORS[str(name)]: float(value) for name, value in of_k[measure].items()}
        _lines(ax, lines)
        ax.set_title(title)
        ax.set_yticks(range(len(methods)), [METHODS[m] for m in methods] if ax is axes[0] else [""] * len(methods))
        ax.set_ylim(-0.6, len(methods) - 0.4)
        if measure != "probe":
            ax.set_xlim(LOWEST - 0.08, 1.03)
    return figure


def _lines(ax: Axes, lines: Mapping[str, float]) -> None:
    for (name, value), style in zip(lines.items(), LINES, strict=False):
        if value >= LOWEST:
            ax.axvline(value, color="black", ls=style, lw=0.8, label=name, zorder=0)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=7)
