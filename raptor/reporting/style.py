"""What all figures share: style, colours, and saving as PNG and PDF."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from raptor.utils.files import atomic_write

# distinct without colour, too, by line, marker and hatching; colours of Okabe and Ito
TYPE_STYLES: dict[str, dict[str, Any]] = {
    "cls": {"color": "#d55e00", "ls": "-", "marker": "o", "hatch": ""},
    "registers": {"color": "#cc79a7", "ls": "--", "marker": "s", "hatch": "////"},
    "patches": {"color": "#0072b2", "ls": "-.", "marker": "^", "hatch": "...."},
}
TYPE_COLOURS = {kind: style["color"] for kind, style in TYPE_STYLES.items()}
LINES = ("-", "--", "-.", ":")
NEUTRAL = "#8c8c8c"
CAPTION_CHARACTERS = 20  # in an inch
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}  # nothing that depends on when or where
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


def new_figure(
    width: float, height: float, columns: int = 1, top: float = 1.0, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Make a figure in the house style, with its axes row by row.

    Parameters
    ----------
    width, height
        Size in inches.
    columns, rows
        Grid of axes.
    top
        Share of the height that the axes take.
    """
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, top)))
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def fold(label: str, width: int = 24, lines: int = 3) -> str:
    """Return a label in lines of at most ``width`` characters; what is longer ends in dots."""
    found = wrap(label, width)
    return "\n".join([*found[: lines - 1], found[lines - 1][: width - 3] + "..."] if len(found) > lines else found)


def fold_apart(labels: Sequence[str]) -> list[str]:
    """Fold labels, in as many lines as it takes to tell them apart."""
    lines = next((n for n in (3, 4, 5, 6, 8) if len({fold(x, lines=n) for x in labels}) == len(set(labels))), 12)
    return [fold(label, lines=lines) for label in labels]


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


def save_figure(figure: Figure, stem: Path, caption: str = "") -> list[Path]:
    """Write a figure as ``stem.png`` and ``stem.pdf``, in this order; the files depend on the figure alone.

    Parameters
    ----------
    figure
        What to write.
    stem
        Path of the files without their ending.
    caption
        Written below it, so that the file says by itself what it shows.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(wrap(caption, int(CAPTION_CHARACTERS * figure.get_figwidth())))
    figure.text(0.01, -0.01, lines, size=6.5, color=NEUTRAL, va="top")
    paths = []
    for kind in METADATA:
        path = stem.with_suffix(f".{kind}")
        atomic_write(path, lambda p, k=kind: _render(figure, p, k))  # type: ignore[misc]
        paths.append(path)
    return paths


def embedded(figure: Figure) -> str:
    """Encode a figure as a ``data:`` address for a self-contained page."""
    picture = io.BytesIO()
    _render(figure, picture, "png")
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()


def _render(figure: Figure, target: Path | io.BytesIO, kind: str) -> None:
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # laid out once; with "none", a placeholder would have all drawn again
    # "tight" by itself would draw everything once more
    padded = figure.get_tightbbox().padded(matplotlib.rcParams["savefig.pad_inches"])
    figure.savefig(target, format=kind, metadata=METADATA[kind], bbox_inches=padded)
