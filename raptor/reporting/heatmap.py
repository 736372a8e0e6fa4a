"""The layer distance as a heat map, with the phases drawn in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from raptor.partition.maxcut import Matrix
from raptor.reporting.style import new_figure


def heatmap(distance: Matrix, phases: Mapping[str, Any], title: str) -> Figure:
    """Distance matrix with the phases of each partition outlined, one panel for each number of phases.

    Parameters
    ----------
    distance
        ``(L, L)`` over the layers 1..L.
    phases
        Content of a ``phases.json``.
    title
        What was measured.
    """
    wanted = {k: edges for k, edges in phases["phases"].items() if int(k) > 1} or phases["phases"]
    figure, axes = new_figure(2.9 * len(wanted) + 0.7, 3.5, columns=len(wanted), top=0.93)
    L = len(distance)
    step = -(-L // 6)
    ticks = range(step, L + 1, step)
    for ax, (k, edges) in zip(axes, wanted.items(), strict=True):
        image = ax.imshow(distance, cmap="magma_r", extent=(0.5, L + 0.5, L + 0.5, 0.5), vmin=0)
        for start, end in edges:
            ax.add_patch(
                Rectangle((start + 0.5, start + 0.5), end - start, end - start, fill=False, ec="#1f9e89", lw=2.2)
            )
        share = phases["measures"][k]["share"]
        boundaries = ", ".join(map(str, phases["boundaries"][k])) or "none"
        ax.set_title(f"k = {k}: cut after {boundaries}\ncuts {100 * (share or 0):.1f} % of the weight")
        ax.set_xticks(ticks)
        ax.set_yticks(ticks)
        ax.set_xlabel("layer")
        ax.spines[["top", "right"]].set_visible(True)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="1 - cosine", shrink=0.8)
    how = "given phases" if phases["solver"] == "given" else f"phases by the {phases['solver']} solver"
    figure.text(0.01, 0.95, f"Distance between layers: {title}; {how}")
    return figure
