"""Draw layer distances as heat maps, with the phases outlined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from raptor.analysis.measures import LABELS
from raptor.partition.maxcut import Matrix
from raptor.reporting.style import new_figure

COLUMNS = 4  # of a figure of many teachers


def heatmap(distance: Matrix, phases: Mapping[str, Any], title: str) -> Figure:
    """Draw a distance matrix with the phases of each partition outlined, a panel for each number of phases.

    Parameters
    ----------
    distance
        ``(L, L)`` over the layers 1..L.
    phases
        Content of a ``phases.json``, of this release or an earlier one.
    title
        What was measured.
    """
    wanted = [k for k in phases["phases"] if int(k) > 1] or list(phases["phases"])
    lines = [_evidence(phases, k) for k in wanted]
    figure, axes = new_figure(2.9 * len(wanted) + 0.7, 3.5 + 0.14 * max(map(len, lines)), columns=len(wanted), top=0.93)
    for ax, k, evidence in zip(axes, wanted, lines, strict=True):
        image = _draw(ax, distance, phases["phases"][k])
        share = phases["measures"][k]["share"]
        boundaries = ", ".join(map(str, phases["boundaries"][k])) or "none"
        cut = f"k = {k}: cut after {boundaries}\ncuts {100 * (share or 0):.1f} % of the weight"
        ax.set_title("\n".join([cut, *evidence]), fontsize=7.5)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes, label=_label(phases), shrink=0.8)
    how = "given phases" if phases["solver"] == "given" else f"phases by the {phases['solver']} solver"
    figure.text(0.01, 0.95, f"Distance between layers: {title}; {how}")
    return figure


def teacher_heatmaps(teachers: Mapping[str, tuple[Matrix, Mapping[str, Any]]]) -> Figure:
    """Draw the distance matrices of many teachers side by side, with one colour scale.

    Parameters
    ----------
    teachers
        By name: the distance matrix and the content of ``phases.json``; the partition with the most phases is outlined.
    """
    columns = min(COLUMNS, len(teachers))
    rows = -(-len(teachers) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.9, 2.75 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    top = max(float(distance.max()) for distance, _ in teachers.values())
    for ax, (name, (distance, phases)) in zip(axes, teachers.items(), strict=False):
        k = max(phases["phases"], key=int)
        image = _draw(ax, distance, phases["phases"][k], top)
        null = _evidence(phases, k)[:2]
        boundaries = ", ".join(map(str, phases["boundaries"][k])) or "none"
        ax.set_title("\n".join([name, f"cut after {boundaries}", *null]), fontsize=6.5)
    for ax in axes[len(teachers) :]:
        ax.set_axis_off()
    for ax in axes[::columns]:
        ax.set_ylabel("layer")
    figure.colorbar(image, ax=axes.tolist(), label=_label(next(iter(teachers.values()))[1]), shrink=0.8)
    return figure


def _draw(ax: Axes, distance: Matrix, edges: list[list[int]], top: float | None = None) -> AxesImage:
    L = len(distance)
    image = ax.imshow(distance, cmap="magma_r", extent=(0.5, L + 0.5, L + 0.5, 0.5), vmin=0, vmax=top)
    for start, end in edges:
        size = end - start
        ax.add_patch(Rectangle((start + 0.5, start + 0.5), size, size, fill=False, ec="#1f9e89", lw=2.2))
    step = -(-L // 6)
    ax.set_xticks(range(step, L + 1, step))
    ax.set_yticks(range(step, L + 1, step))
    ax.set_xlabel("layer")
    ax.spines[["top", "right"]].set_visible(True)
    return image


def _evidence(phases: Mapping[str, Any], k: str) -> list[str]:
    """Describe a partition against its null models, a line each; files of earlier releases have none."""
    lines = []
    nulls = phases.get("nulls") or {}
    if (null := (nulls.get("toeplitz") or {}).get(k)) is not None:
        contrast, share = null["contrast"], null["share"]
        found = phases["measures"][k]["contrast"]
        lines.append(f"contrast {found:.2f}, no phases {contrast['mean']:.2f}, p = {contrast['p']:.2g}")
        lines.append(f"cut without phases {100 * share['mean']:.1f} %, p = {share['p']:.2g}")
    if (null := (nulls.get("layers") or {}).get(k)) is not None:
        lines.append(f"layers permuted: p = {null['contrast']['p']:.2g} and {null['share']['p']:.2g}")
    if (equal := (phases.get("equal") or {}).get(k)) is not None and equal["share"] is not None:
        lines.append(f"equal sizes cut {100 * equal['share']:.1f} %")
    if (stable := (phases.get("stability") or {}).get(k)) is not None:
        lines.append(f"the same in {100 * stable['same']:.0f} % of resamples")
    return lines


def _label(phases: Mapping[str, Any]) -> str:
    return LABELS.get(phases.get("measure") or "", "distance" if "measure" in phases else "1 - cosine")
