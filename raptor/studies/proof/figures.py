"""Figures of an existence proof, from the numbers of its runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raptor.reporting.figures import colours
from raptor.reporting.layers import FLOORS, LOWEST
from raptor.reporting.style import LINES, NEUTRAL, TYPE_STYLES, legend_beside, new_figure
from raptor.studies.proof.rows import CONTROL, TEACHER, Numbers, curve, final_readouts, references

PHOTOGRAPHS = 2


def accuracy_by_layer(numbers: Numbers) -> Figure:
    """Draw what ridge regression reads off each layer: teacher, control, and every model as an early exit."""
    figure, (ax,) = new_figure(5.4, 3.0)
    rows = final_readouts(numbers)
    models = {name: r for name, r in rows.items() if r["backbone"] is not None}
    data = next(iter(references(numbers).values()))["data"]
    styles: dict[str, dict[str, Any]] = {
        TEACHER: {"color": "black", "marker": "o"},
        CONTROL: {"color": NEUTRAL, "ls": "--"},
    }
    for label, row in references(numbers, data).items():
        ax.plot(np.multiply(100, row["accuracy"]["ridge"]), ms=3, label=label, **styles[label])
    for (_, row), colour in zip(models.items(), colours(max(1, len(models))), strict=False):
        if row["data"] == data:
            ax.plot(np.multiply(100, row["accuracy"]["ridge"]), "-", marker=".", lw=1, color=colour, label=row["label"])
    ax.set(xlabel="layer", ylabel="top-1 of ridge regression (%)", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_beside(ax)
    return figure


def fidelity_by_layer(numbers: Numbers) -> Figure | None:
    """Draw R2 centred of each model by layer and token type, with all floors; None where there is no model."""
    models = numbers["models"]
    if not models:
        return None
    kinds = list(next(iter(models.values()))["layers"]["r2_centered"])
    figure, axes = new_figure(2.3 * len(models) + 1.6, 2.1 * len(kinds), columns=len(models), rows=len(kinds))
    grid = np.array(axes, dtype=object).reshape(len(kinds), len(models))
    for row, kind in zip(grid, kinds, strict=True):
        for ax, model in zip(row, models.values(), strict=True):
            x = range(1, len(model["layers"]["r2_centered"][kind]) + 1)
            style = {key: TYPE_STYLES[kind][key] for key in ("color", "ls", "marker")}
            ax.plot(x, model["layers"]["r2_centered"][kind], ms=3, lw=1.5, **style)
            for (name, by), dashes in zip(model["floors"].items(), LINES, strict=False):
                if by.get(kind):
                    ax.plot(x, by[kind], color="black", ls=dashes, lw=0.9, label=FLOORS.get(name, name))
            for boundary in model["boundaries"] or []:
                ax.axvline(boundary + 0.5, color=NEUTRAL, lw=0.8, ls=":")
            ax.set_ylim(LOWEST, 1.0)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        row[0].set_ylabel(f"{kind}\nR2 centred")
    for ax, model in zip(grid[0], models.values(), strict=True):
        ax.set_title(f"{model['label']}, seed {model['seed']}", fontsize=8)
    legend_beside(grid[0][-1], fontsize=7)
    return figure


def curves_over_images(numbers: Numbers) -> Figure | None:
    """Draw fidelity and accuracy over the images seen; None where no model has points on its way."""
    figure, (left, right) = new_figure(7.2, 2.8, columns=2)
    drawn = False
    models = numbers["models"]
    for (name, model), colour in zip(models.items(), colours(max(1, len(models))), strict=False):
        label = f"{model['label']}, seed {model['seed']}"
        for kind, points in model["history"].items():
            if model["batch"] and points:
                images, values = np.array(points).T
                left.plot(images * model["batch"], values, color=colour, **_line(kind), ms=3, label=f"{label}, {kind}")
                drawn = True
        if points := curve(numbers, name):
            right.plot(*np.array(points).T * np.array([[1], [100]]), "o-", color=colour, ms=3, label=label)
            drawn = True
    if not drawn:
        return None
    for label, row in references(numbers).items():
        right.axhline(100 * row["accuracy"]["ridge"][-1], color=NEUTRAL, ls="--" if label == CONTROL else "-", lw=1)
    left.set(xlabel="images seen", ylabel="R2 centred, mean over layers", ylim=(LOWEST, 1.0))
    right.set(xlabel="images seen", ylabel="top-1 of ridge regression (%)", ylim=(0, None))
    for ax in (left, right):
        ax.set_xscale("log", base=2)
    legend_beside(right, {"teacher": {"color": NEUTRAL}, "untrained": {"color": NEUTRAL, "ls": "--"}}, fontsize=7)
    return figure


def _line(kind: str) -> dict[str, Any]:
    return {key: TYPE_STYLES[kind][key] for key in ("ls", "marker")}


def colour_maps(numbers: Numbers, every: int = 2) -> Figure | None:
    """Draw the patches of two photographs by layer, teacher above and each model below; None where there are none."""
    rows = {r["label"]: r["maps"] for r in final_readouts(numbers).values() if "maps" in r and r["label"] != TEACHER}
    if not rows:
        return None
    first = next(iter(rows.values()))
    layers = range(0, len(first["teacher"]), every)
    shown = [(TEACHER, first["teacher"]), *((label, maps["backbone"]) for label, maps in rows.items())]
    figure, axes = new_figure(
        0.8 * len(layers) + 1, 0.85 * len(shown) * PHOTOGRAPHS, columns=len(layers), rows=len(shown) * PHOTOGRAPHS
    )
    grid = np.array(axes, dtype=object).reshape(PHOTOGRAPHS, len(shown), len(layers))
    height, width = first["grid"]
    for photograph, block in enumerate(grid):
        for (label, colours_LPN), line in zip(shown, block, strict=True):
            for ax, layer in zip(line, layers, strict=True):
                ax.imshow(np.array(colours_LPN[layer][photograph]).reshape(height, width, 3))
                ax.set_xticks([])
                ax.set_yticks([])
                ax.set_title(f"layer {layer}" if label == TEACHER else "", fontsize=7)
            line[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    return figure
