"""What all figures share: style, colours, and saving as PNG and PDF."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from raptor.files import write_aside

TYPE_COLOURS = {"cls": "#b5442e", "registers": "#8a6bb1", "patches": "#2b6ca3"}
NEUTRAL = "#8c8c8c"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
    "figure.constrained_layout.h_pad": 0.08,
}
matplotlib.rcParams.update(STYLE)


def new_figure(width: float, height: float, columns: int = 1, top: float = 1.0) -> tuple[Figure, list[Axes]]:
    """Figure in the house style, sized in inches, with its axes side by side below ``top`` (a share of its height)."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, top)))
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def legend_beside(ax: Axes, styles: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> None:
    """Legend to the right of an axis: what it labels, then what line and marker styles stand for, in black.

    Parameters
    ----------
    ax
        The rightmost axis.
    styles
        Options of :meth:`matplotlib.axes.Axes.plot` by label.
    options
        Of the legend.
    """
    for label, style in (styles or {}).items():
        ax.plot([], [], label=label, **{"color": "black", "lw": 1, **style})
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), **options)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.pdf``, in this order; the files depend on the figure alone."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        path = stem.with_suffix(f".{kind}")
        write_aside(path, lambda p, k=kind, m=metadata: figure.savefig(p, format=k, metadata=m))  # type: ignore[misc]
        paths.append(path)
        figure.set_layout_engine("none")  # laid out once, the slowest part
    return paths


def embedded(picture: Path) -> str:
    """A PNG file as a ``data:`` address for a self-contained page."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
