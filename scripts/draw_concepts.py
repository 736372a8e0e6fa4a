"""Draw the pictures of docs/concepts: ``python scripts/draw_concepts.py [docs/figures]``."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from raptor.partition.maxcut import solve
from raptor.reporting.style import NEUTRAL, new_figure

DOCS = Path(__file__).parents[1] / "docs" / "figures"
COLOURS = ("#0072b2", "#e69f00", "#009e73")  # of phases; Okabe and Ito
BOUNDARIES = (7, 10)  # the phases of DINOv2 ViT-B/14 that the paper uses for k = 3
LAYERS = 12


def main() -> None:
    """Write all pictures into a folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (loops, stages, block, phases):
        draw().savefig(folder / f"concept_{draw.__name__}.png", metadata={"Software": None})


def loops() -> Figure:
    """Draw twelve blocks in a row, and the three tied blocks that take their place."""
    figure, (ax,) = new_figure(7.4, 2.9)
    _canvas(ax, 13.2, 4.6, bottom=-0.6)
    ends = [0, *BOUNDARIES, LAYERS]
    _label(ax, 0.1, 4.3, "teacher: 12 blocks, each with weights of its own", left=True)
    _label(ax, 0.1, -0.35, "surrogate: 3 blocks, each applied several times in a row", left=True)
    for phase, (start, end) in enumerate(itertools.pairwise(ends)):
        colour = COLOURS[phase]
        for layer in range(start + 1, end + 1):
            _box(ax, layer + 0.05, 3.1, 0.78, 0.8, str(layer), colour, 0.35 + 0.05 * (layer - start))
            _arrow(ax, (layer - 0.17, 3.5), (layer + 0.05, 3.5))
        middle = (start + end) / 2 + 0.95 - 0.5
        _box(ax, middle - 0.55, 0.55, 1.1, 0.9, f"block {phase + 1}", colour, 0.85, bold=True)
        _loop(ax, middle, 1.0, colour, f"x {end - start}")
        for layer in (start + 1, end):
            ax.plot([layer + 0.44, middle], [3.05, 1.55], color=colour, lw=0.8, ls=":")
    middles = [(a + b) / 2 + 0.45 for a, b in itertools.pairwise(ends)]
    for left, right in zip([0.0, *[m + 0.55 for m in middles]], [*[m - 0.55 for m in middles], 13.1], strict=True):
        _arrow(ax, (left + 0.05, 1.0), (right - 0.03, 1.0))
    _arrow(ax, (12.83, 3.5), (13.1, 3.5))
    return figure


def stages() -> Figure:
    """Draw what each block sees in stage 1, and in stage 2."""
    figure, axes = new_figure(7.4, 2.6, columns=2)
    for ax, title in zip(axes, ("stage 1: each block by itself", "stage 2: all blocks end to end"), strict=True):
        _canvas(ax, 7.2, 3.6)
        ax.set_title(title)
        _label(ax, 0.05, 2.9, "teacher", left=True)
        _label(ax, 0.05, 1.0, "surrogate", left=True)
        for layer in range(6):
            _box(ax, 1.5 + 0.92 * layer, 2.65, 0.55, 0.5, f"$x_{layer}$", NEUTRAL, 0.35)
            if layer:
                _arrow(ax, (1.5 + 0.92 * layer - 0.37, 2.9), (1.5 + 0.92 * layer, 2.9))
    first, second = axes
    for layer in range(1, 6):
        x, phase = 1.5 + 0.92 * layer, int(layer > 3)
        for ax in axes:
            _box(ax, x, 0.75, 0.55, 0.5, f"$y_{layer}$", COLOURS[phase], 0.6)
            ax.plot([x + 0.27] * 2, [1.3, 2.6], color="black", lw=0.7, ls=":")
        if layer in (1, 4):
            _arrow(first, (x - 0.92 + 0.4, 2.62), (x + 0.05, 1.25), COLOURS[phase])
        else:
            _arrow(first, (x - 0.37, 1.0), (x, 1.0), COLOURS[phase])
        if layer == 1:
            _arrow(second, (x - 0.52, 2.62), (x + 0.05, 1.25), COLOURS[phase])
        else:
            _arrow(second, (x - 0.37, 1.0), (x, 1.0), COLOURS[phase])
    for ax in axes:
        _label(ax, 4.1, 0.25, "dotted: each layer is compared with the teacher's")
    return figure


def block() -> Figure:
    """Draw a tied block with the factors that the depth index gives."""
    figure, (ax,) = new_figure(7.4, 2.2)
    _canvas(ax, 13.6, 3.6)
    steps = [("norm", 1.3), ("attention", 2.6), ("norm", 6.0), ("MLP", 7.3)]
    for text, x in steps:
        _box(ax, x, 0.75, 1.15 if text in ("norm", "MLP") else 1.4, 0.65, text, COLOURS[0], 0.35)
    for x, text in ((4.75, "$s_1(t)$"), (9.2, "$s_2(t)$"), (11.6, "$s_3(t)$")):
        _box(ax, x - 0.4, 2.3 if x > 11 else 0.75, 0.9, 0.65, text, COLOURS[1], 0.6)
    _arrow(ax, (0.2, 2.62), (11.15, 2.62))
    _arrow(ax, (12.1, 2.62), (13.3, 2.62))
    for start, end in ((0.8, 5.6), (5.7, 10.4)):
        ax.plot([start, start], [2.62, 1.07], color="black", lw=1)
        _arrow(ax, (start, 1.07), (start + (0.5 if start < 1 else 0.3), 1.07))
        ax.plot([end - 0.3, end - 0.3], [1.07, 2.2], color="black", lw=1)
        _arrow(ax, (end - 0.3, 1.9), (end - 0.3, 2.6))
        _label(ax, end - 0.3, 2.85, "+")
    for left, right in ((2.45, 2.6), (4.0, 4.35), (7.15, 7.3), (8.45, 8.8), (9.7, 10.1)):
        _arrow(ax, (left, 1.07), (right, 1.07))
    _label(ax, 0.2, 3.1, "layer $t-1$", left=True)
    _label(ax, 13.2, 3.1, "layer $t$", left=False)
    _label(
        ax,
        6.8,
        0.2,
        "the same weights at every depth; only the factors $s(t)$ depend on the index $t$ of the layer produced",
    )
    return figure


def phases() -> Figure:
    """Draw a matrix of two clear phases, and one whose distance depends on the gap between layers alone."""
    figure, axes = new_figure(6.6, 3.3, columns=2)
    layers = np.arange(LAYERS)
    same = (layers[:, None] < 7) == (layers < 7)
    clear = np.where(same, 0.25, 0.9) * (layers[:, None] != layers)
    gap = 1 - np.exp(-np.abs(layers[:, None] - layers) / 6)
    for ax, matrix, title in zip(axes, (clear, gap), ("two phases", "no phases: only the gap counts"), strict=True):
        (boundary,) = solve(matrix, 2)
        image = ax.imshow(matrix, extent=(0.5, LAYERS + 0.5, LAYERS + 0.5, 0.5), cmap="viridis", vmin=0, vmax=1)
        for start, end in ((0.5, boundary + 0.5), (boundary + 0.5, LAYERS + 0.5)):
            ax.plot([start, end, end, start, start], [start, start, end, end, start], color="white", lw=1.6)
        ax.set_title(f"{title}\nmax-cut cuts after layer {boundary}")
        ax.set_xlabel("layer")
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="distance between two layers", shrink=0.8)
    return figure


def _canvas(ax: Axes, width: float, height: float, bottom: float = 0.0) -> None:
    ax.set_xlim(0, width)
    ax.set_ylim(bottom, height)
    ax.set_axis_off()


def _box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    colour: str,
    strength: float,
    *,
    bold: bool = False,
) -> None:
    shape = "round,pad=0,rounding_size=0.12"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=to_rgba(colour, strength), ec=colour, lw=1))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontweight="bold" if bold else "normal")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "black") -> None:
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, shrinkA=0, shrinkB=0, color=colour, lw=1)
    )


def _loop(ax: Axes, x: float, y: float, colour: str, text: str) -> None:
    arc = FancyArrowPatch(
        (x + 0.3, y - 0.45), (x - 0.3, y - 0.45), connectionstyle="arc3,rad=-1.1", arrowstyle="-|>", mutation_scale=9,
        color=colour, lw=1.4,
    )  # fmt: skip
    ax.add_patch(arc)
    ax.text(x + 0.62, y - 0.72, text, ha="left", va="center", fontweight="bold")


def _label(ax: Axes, x: float, y: float, text: str, *, left: bool | None = None) -> None:
    ax.text(x, y, text, ha="center" if left is None else "left" if left else "right", va="center", fontsize=8.5)


if __name__ == "__main__":
    main()
