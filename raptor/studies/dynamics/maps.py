"""Draw dynamics otherwise than as curves over depth: projections, spectra, errors of operators."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from raptor.analysis.projection import along_great_circle, principal_components
from raptor.reporting.style import NEUTRAL, legend_beside, new_figure
from raptor.studies.dynamics.panels import colour_of, ends_of, plain_log, type_panels
from raptor.studies.dynamics.rules import Arrays

SHOWN_CLASSES = 10
PREDICTIONS = {"linear": "operator", "shift": "mean shift", "identity": "no change", "mean": "constant mean"}


def projections(networks: Mapping[str, Arrays], kind: str) -> Figure:
    """Draw trajectories in their two leading principal components: coloured by depth above, by class below.

    Rings lie on the mean trajectory at the last layer of each phase but the last.
    """
    labelled = "labels" in next(iter(networks.values()))
    figure = Figure(figsize=(3.2 * len(networks) + 1.0, 3.0 * (1 + labelled)), layout="constrained")
    grid = figure.subplots(1 + labelled, len(networks), squeeze=False)
    for column, (name, arrays) in enumerate(networks.items()):
        points = arrays[f"shown/{kind}"]
        xy, shares = principal_components(points)
        layers = np.broadcast_to(np.arange(points.shape[1]), points.shape[:2])
        ax = grid[0][column]
        ax.add_collection(LineCollection(list(xy), color=NEUTRAL, lw=0.3, alpha=0.35, zorder=1))
        dots = ax.scatter(*xy.reshape(-1, 2).T, c=layers.ravel(), cmap="viridis", s=5, lw=0, zorder=2)
        ends = xy.mean(axis=0)[arrays["boundaries"]]
        ax.plot(*ends.T, "o", mfc="none", mec="black", ms=9, zorder=3)
        ax.set_title(f"{name} ({100 * shares.sum():.0f} % of variance)")
        if labelled:
            classes, last = arrays["labels"][: len(points)], grid[1][column]
            present, counts = np.unique(classes, return_counts=True)
            frequent = sorted(present[np.argsort(-counts, kind="stable")[:SHOWN_CLASSES]])
            colours = {label: matplotlib.colormaps["tab10"](index) for index, label in enumerate(frequent)}
            # in the order of images, so that no class lies on top
            order = [i for i, label in enumerate(classes) if label in colours]
            shades = [colours[label] for label in classes[order]]
            last.add_collection(LineCollection(list(xy[order]), colors=shades, lw=0.6, alpha=0.6))
            last.scatter(*xy[order, -1].T, c=shades, s=8, lw=0, zorder=2)
            for label, colour in colours.items():
                last.plot([], [], color=colour, label=f"class {label}")
            of = "" if len(present) <= SHOWN_CLASSES else f", the {SHOWN_CLASSES} largest of {len(present)}"
            last.set_title(f"by class{of}; a dot at the last layer")
    for ax in grid.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel("component 1")
    for row in grid:
        row[0].set_ylabel("component 2")
    figure.colorbar(dots, ax=grid[0].tolist(), label="layer")
    if labelled:
        legend = grid[1][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
        legend.set_in_layout(False)  # there is room below the colour bar
    return figure


def great_circles(networks: Mapping[str, Arrays]) -> Figure:
    """Draw how far trajectories have come along the great circle from start to end, and how far off it they are."""
    figure, panels = type_panels(networks, "shown/")
    colours = colour_of(list(networks))
    for kind, ax in panels.items():
        for name, arrays in networks.items():
            along, off = along_great_circle(arrays[f"shown/{kind}"])
            for values, style in ((along, "-"), (off, "--")):
                mean = np.degrees(values.mean(axis=0))
                ax.plot(mean, color=colours[name], ls=style, lw=1.5, label=name if style == "-" else None)
    first, last = ends_of(panels)
    first.set_ylabel("degrees")
    legend_beside(last, {"along the great circle": {}, "off its plane": {"ls": "--"}})
    return figure


def phases_of_operators(arrays: Arrays) -> list[str]:
    """List the phases that operators were fitted for, in order of depth."""
    phases = {key.split("/")[1] for key in arrays if key.startswith("operators/")}
    return sorted(phases, key=lambda phase: int(phase.split("-")[0]))


def fitted_kinds(networks: Mapping[str, Arrays]) -> list[str]:
    """List the token types that operators were fitted for."""
    return list(
        dict.fromkeys(key.split("/")[2] for a in networks.values() for key in a if key.startswith("operators/"))
    )


def operator_spectra(networks: Mapping[str, Arrays], kind: str) -> Figure:
    """Draw the eigenvalues of the linear operator of each phase in the complex plane."""
    count = max(len(phases_of_operators(arrays)) for arrays in networks.values())
    figure, axes = new_figure(2.9 * count + 1.0, 3.0, columns=count)
    colours = colour_of(list(networks))
    for index, ax in enumerate(axes):
        ax.add_patch(Circle((0, 0), 1.0, fill=False, ec="black", lw=0.8))
        there: dict[str, None] = {}
        for name, arrays in networks.items():
            for phase in phases_of_operators(arrays)[index : index + 1]:
                values = arrays[f"operators/{phase}/{kind}/eigenvalues"]
                ax.plot(values.real, values.imag, ".", color=colours[name], ms=5, alpha=0.7, label=name)
                there[phase] = None
        ax.set_aspect("equal", adjustable="datalim")
        ax.set_title(f"phase {', '.join(there)}")
        ax.set_xlabel("real part")
    axes[0].set_ylabel(f"{kind}: imaginary part")
    legend_beside(axes[-1])
    return figure


def operator_errors(networks: Mapping[str, Arrays]) -> Figure:
    """Draw the held-out error of one step predicted by the operator and by baselines: bars by phase."""
    kinds = fitted_kinds(networks)
    count = max(len(phases_of_operators(arrays)) for arrays in networks.values())
    figure, axes = new_figure(3.4 * len(kinds) + 1.6, 2.9, columns=len(kinds))
    colours = colour_of(list(networks))
    width = 0.8 / (len(networks) * len(PREDICTIONS))
    for ax, kind in zip(axes, kinds, strict=True):
        for i, (name, arrays) in enumerate(networks.items()):
            phases = phases_of_operators(arrays)
            for j, (prediction, alpha) in enumerate(zip(PREDICTIONS, (1.0, 0.7, 0.45, 0.2), strict=True)):
                heights = [float(arrays[f"operators/{phase}/{kind}/{prediction}_error"]) for phase in phases]
                x = np.arange(len(phases)) + (i * len(PREDICTIONS) + j + 0.5) * width - 0.4
                ax.bar(x, heights, width, color=colours[name], alpha=alpha, label=f"{name}: {PREDICTIONS[prediction]}")
        ax.set_xticks(range(count), [str(i) for i in range(1, count + 1)])
        ax.set(title=kind, xlabel="number of the phase", yscale="log")
    axes[0].set_ylabel("mean squared error of x^\nat the next layer, held out")
    legend_beside(axes[-1], fontsize=7)
    return figure


def jacobians(networks: Mapping[str, Arrays]) -> Figure:
    """Draw the largest singular values and eigenvalues of the Jacobian of the last step of each phase."""
    layers = sorted({int(key.split("/")[1]) for a in networks.values() for key in a if key.startswith("jacobian/")})
    panels = {"": "tokens", "angular_": "directions"}
    figure, axes = new_figure(3.6 * len(panels) + 1.4, 3.0, columns=len(panels))
    colours = colour_of(list(networks))
    for ax, (prefix, title) in zip(axes, panels.items(), strict=True):
        for i, (name, arrays) in enumerate(networks.items()):
            for measure, marker, shift in (("singular", "s", -0.05), ("eigenvalues", "o", 0.05)):
                for at, layer in enumerate(layers):
                    if f"jacobian/{layer}/{prefix}{measure}" not in arrays:
                        continue
                    values = np.abs(arrays[f"jacobian/{layer}/{prefix}{measure}"][:, 0])
                    x = np.full(len(values), at + 0.25 * (i - (len(networks) - 1) / 2) + shift)
                    label = name if at == 0 and measure == "singular" else None
                    ax.plot(x, values, marker, color=colours[name], ms=4, mfc="none", label=label)
        ax.axhline(1.0, color="black", lw=0.8, ls=":")
        plain_log(ax)
        ax.set_xticks(range(len(layers)), [f"{layer - 1} to {layer}" for layer in layers])
        ax.set(title=title, xlabel="step")
    axes[0].set_ylabel("largest of the Jacobian")
    markers = {"singular value": "s", "|eigenvalue|": "o"}
    legend_beside(axes[-1], {label: {"marker": m, "ls": "", "mfc": "none", "ms": 4} for label, m in markers.items()})
    return figure
