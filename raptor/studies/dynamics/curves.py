"""Draw dynamics over depth: a panel for each token type, a line for each network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from raptor.reporting.style import legend_beside, new_figure
from raptor.studies.dynamics.panels import COLOURS, colour_of, ends_of, mark_depth, plain_log, type_panels
from raptor.studies.dynamics.rules import Arrays
from raptor.studies.dynamics.summary import mean_and_interval, moved, share_and_interval

WAYS = {"random": "-", "class": "--"}


def _band(ax: Axes, x: NDArray[np.float64], values: NDArray[np.float64], colour: str, label: str) -> None:
    """Mean over images as a line, the middle 80 % of images as a band."""
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    ax.plot(x, values.mean(axis=0), color=colour, lw=1.6, label=label)


def depth_curves(
    networks: Mapping[str, Arrays], key: str, label: str, *, log: bool = False, scale: float = 1.0
) -> Figure:
    """Draw a measure over depth: a panel for each token type.

    Parameters
    ----------
    networks
        Arrays by network; the first sets the phase boundaries.
    key
        Such as ``curves/speed``: arrays ``(n, layers)`` stand below it by token type. Those of L entries are of steps,
        and are drawn at the layer that the step gives.
    label
        Of the vertical axis.
    log
        Whether that axis is logarithmic.
    scale
        To multiply with.
    """
    figure, panels = type_panels(networks, f"{key}/", beside=0.9)
    colours = colour_of(list(networks))
    for kind, ax in panels.items():
        for name, arrays in networks.items():
            values = arrays.get(f"{key}/{kind}")
            if values is None:
                continue
            first = len(arrays["distance"]) + 1 - values.shape[1]
            _band(ax, np.arange(first, first + values.shape[1]), scale * values, colours[name], name)
            if key == "curves/convergence":
                ax.plot(arrays[f"other_end/{kind}"], color=colours[name], lw=1, ls="--")
                own = (
                    arrays.get("basins/class_mean/cls") if kind == "cls" else None
                )  # of others, that of the mean token
                if own is not None:
                    ax.plot(own.mean(axis=0), color=colours[name], lw=1, ls=":")
        if log:
            plain_log(ax)
    first, last = ends_of(panels)
    first.set_ylabel(label)
    baselines = {"another image's end": {"ls": "--"}, "its class's mean end (cls)": {"ls": ":"}}
    legend_beside(last, baselines if key == "curves/convergence" else None)
    return figure


def basins(networks: Mapping[str, Arrays]) -> Figure:
    """Draw the nearest class direction on held-out images: accuracy by layer, against chance."""
    figure, panels = type_panels(networks, "basins/final/", beside=1.6)
    colours = colour_of(list(networks))
    chance = next(float(a["basins/chance"]) for a in networks.values() if "basins/chance" in a)
    for kind, ax in panels.items():
        for name, arrays in networks.items():
            for which, style in (("final", "-"), ("own", "--")):
                values = arrays.get(f"basins/{which}/{kind}")
                if values is not None:
                    share, low, high = share_and_interval(values)
                    ax.fill_between(range(len(share)), low, high, color=colours[name], alpha=0.15, lw=0)
                    ax.plot(share, color=colours[name], ls=style, lw=1.5, label=name if style == "-" else None)
        ax.axhline(chance, color="black", lw=0.8, ls=":")
        ax.set_ylim(0, 1.02)
    first, last = ends_of(panels)
    first.set_ylabel("held-out images nearest\nto their class direction")
    legend_beside(last, {"of the last layer": {}, "of the same layer": {"ls": "--"}, "chance": {"ls": ":"}})
    return figure


def pooled_ranks(networks: Mapping[str, Arrays]) -> Figure:
    """Draw the rank of the updates of all images together, by step."""
    figure, panels = type_panels(networks, "pooled/stable_rank/")
    colours = colour_of(list(networks))
    for kind, ax in panels.items():
        for name, arrays in networks.items():
            for measure, style in (("stable_rank", "-"), ("effective_rank", "--")):
                values = arrays[f"pooled/{measure}/{kind}"]
                ax.plot(
                    range(1, len(values) + 1),
                    values,
                    color=colours[name],
                    ls=style,
                    lw=1.5,
                    label=name if style == "-" else None,
                )
        plain_log(ax)
    first, last = ends_of(panels)
    first.set_ylabel("rank of all updates x^(l+1) - x^(l)")
    legend_beside(last, {"stable rank": {}, "effective rank": {"ls": "--"}})
    return figure


def perturbations(networks: Mapping[str, Arrays], kind: str) -> Figure:
    """Draw the angle to the clean trajectory over its first one: a panel for each network, a colour for each layer."""
    shown = {name: arrays for name, arrays in networks.items() if any(key.startswith("perturbed/") for key in arrays)}
    figure, axes = new_figure(3.4 * len(shown) + 1.8, 3.0, columns=len(shown))
    for ax, (name, arrays) in zip(axes, shown.items(), strict=True):
        keys = [key.split("/") for key in arrays if key.startswith("perturbed/") and key.endswith(f"/{kind}")]
        baseline: list[NDArray[np.float64]] = []
        layers, sizes = (sorted({float(key[i]) for key in keys}) for i in (2, 3))
        for _, way, layer, size, _ in keys:
            angles = moved(arrays, f"perturbed/{way}/{layer}/{size}/{kind}")
            if not len(angles):
                continue
            colour = COLOURS[layers.index(float(layer)) % len(COLOURS)]
            if way == "random":
                offset = moved(arrays, f"constant_offset/{way}/{layer}/{size}/{kind}")
                baseline.append(np.pad((offset / offset[:, :1]).mean(axis=0), (int(layer), 0), constant_values=np.nan))
            width = 0.6 + 1.4 * sizes.index(float(size)) / max(1, len(sizes) - 1)
            x = range(int(layer), int(layer) + angles.shape[1])
            mean, ci95 = mean_and_interval(angles / angles[:, :1])
            ax.fill_between(x, mean - ci95, mean + ci95, color=colour, alpha=0.12, lw=0)
            ax.plot(x, mean, lw=width, color=colour, ls=WAYS[way])
        for curve in baseline:
            ax.plot(curve, color="black", lw=0.8, ls=":")
        ax.axhline(1.0, color="black", lw=0.6)
        mark_depth(ax, {name: arrays}, name)
        ax.set_yscale("log")
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
        plain_log(ax)
    axes[0].set_ylabel(f"{kind}: angle to the clean\ntrajectory over the first one")
    styles: dict[str, dict[str, Any]] = {
        f"perturbed layer {layer:.0f}": {"color": COLOURS[i % len(COLOURS)], "lw": 1.5}
        for i, layer in enumerate(layers)
    }
    styles |= {"random direction": {}, "toward another class": {"ls": WAYS["class"]}}
    styles |= {"random, constant offset": {"lw": 0.8, "ls": ":"}}
    styles |= {f"thin to thick: size {', '.join(f'{size:g}' for size in sizes)}": {"color": "none"}}
    legend_beside(axes[-1], styles)
    return figure


def rollouts(networks: Mapping[str, Arrays]) -> Figure:
    """Draw how well the surrogate that operators make follows its network, beside layer 0 unchanged."""
    figure, panels = type_panels(networks, "rollout/linear/")
    colours = colour_of(list(networks))
    for kind, ax in panels.items():
        for name, arrays in networks.items():
            if (values := arrays.get(f"rollout/linear/{kind}")) is not None:
                _band(ax, np.arange(values.shape[1], dtype=float), values, colours[name], name)
                ax.plot(arrays[f"rollout/identity/{kind}"].mean(axis=0), color=colours[name], lw=1, ls="--")
    first, last = ends_of(panels)
    first.set_ylabel("cosine to the network's layer")
    legend_beside(last, {"operators": {}, "layer 0 unchanged": {"ls": "--"}})
    return figure


def hypothesis(networks: Mapping[str, Arrays]) -> Figure:
    """Draw the error of surrogates, relative to the teacher's layer, against holding the start of each phase."""
    shown = {name: arrays for name, arrays in networks.items() if "hypothesis/surrogate/relative" in arrays}
    measures = [
        ("relative", "relative error |f - s| / |f|"),
        ("angle_cls", "cls: angle (degrees)"),
        ("angle_patches", "patches: angle (degrees)"),
    ]
    measures = [pair for pair in measures if all(f"hypothesis/surrogate/{pair[0]}" in a for a in shown.values())]
    figure, axes = new_figure(3.1 * len(measures) + 1.4, 2.8, columns=len(measures))
    colours = colour_of(list(networks))
    for ax, (measure, label) in zip(axes, measures, strict=True):
        scale = np.degrees(1.0) if measure.startswith("angle") else 1.0
        for name, arrays in shown.items():
            values = scale * arrays[f"hypothesis/surrogate/{measure}"]
            _band(ax, np.arange(values.shape[1]), values, colours[name], name)
            baseline = scale * arrays[f"hypothesis/hold_phase_start/{measure}"].mean(axis=0)
            ax.plot(baseline, color=colours[name], lw=1, ls="--")
        mark_depth(ax, shown, "all tokens" if measure == "relative" else "")
        ax.set_ylabel(label)
    legend_beside(axes[-1], {"start of the phase, held": {"ls": "--"}})
    return figure
