"""Figures of dynamics over depth: a panel for each token type, a line for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from raptor.models.tokens import TOKEN_TYPES
from raptor.results.dynamics_findings import Arrays
from raptor.results.dynamics_summary import kicked, mean_and_interval
from raptor.results.figures import NEUTRAL, new_figure

COLOURS = ("#2b6ca3", "#b5442e", "#1f9e89", "#8a6bb1", "#c98b1b", "#5b4636")
WAYS = {"random": "-", "class": "--"}


def colour_of(networks: Sequence[str]) -> dict[str, str]:
    """A colour for each network, grey for those without training."""
    trained = [name for name in networks if name not in ("untrained", "random weights")]
    return {name: COLOURS[trained.index(name) % len(COLOURS)] if name in trained else NEUTRAL for name in networks}


def mark_depth(ax: Axes, networks: Mapping[str, Arrays], title: str) -> None:
    """Label depth and draw the phase boundaries."""
    for boundary in next(iter(networks.values()))["boundaries"]:
        ax.axvline(boundary + 0.5, color=NEUTRAL, lw=0.8, ls=":")
    ax.set(title=title, xlabel="layer")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _band(ax: Axes, x: NDArray[np.float64], values: NDArray[np.float64], colour: str, label: str) -> None:
    """Mean over images as a line, the middle 80 % of images as a band."""
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    ax.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    ax.plot(x, values.mean(axis=0), color=colour, lw=1.6, label=label)


def kinds_of(networks: Mapping[str, Arrays], prefix: str) -> list[str]:
    """Token types for which some network has arrays that begin so."""
    found = {key.rsplit("/", 1)[1] for arrays in networks.values() for key in arrays if key.startswith(prefix)}
    return [kind for kind in TOKEN_TYPES if kind in found]


def plain_log(ax: Axes) -> None:
    """A logarithmic axis with plain numbers, also between the powers of ten where there are few of those."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}" if high < 8 * low else NullFormatter())


def depth_curves(
    networks: Mapping[str, Arrays], key: str, label: str, *, log: bool = False, scale: float = 1.0
) -> Figure:
    """A measure over depth: a panel for each token type.

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
    kinds = kinds_of(networks, f"{key}/")
    figure, axes = new_figure(3.0 * len(kinds) + 0.9, 2.8, columns=len(kinds))
    colours = colour_of(list(networks))
    for ax, kind in zip(axes, kinds, strict=True):
        for name, arrays in networks.items():
            values = arrays.get(f"{key}/{kind}")
            if values is None:
                continue
            first = len(arrays["distance"]) + 1 - values.shape[1]
            _band(ax, np.arange(first, first + values.shape[1]), scale * values, colours[name], name)
            if key == "curves/convergence":
                ax.plot(arrays[f"other_end/{kind}"], color=colours[name], lw=1, ls="--")
                if (own := arrays.get(f"basins/class_mean/{kind}")) is not None:
                    ax.plot(own.mean(axis=0), color=colours[name], lw=1, ls=":")
        mark_depth(ax, networks, kind)
        if log:
            plain_log(ax)
    axes[0].set_ylabel(label)
    if key == "curves/convergence":
        for label, style in (("another image's end", "--"), ("its class's mean end", ":")):
            axes[-1].plot([], [], color="black", lw=1, ls=style, label=label)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def basins(networks: Mapping[str, Arrays]) -> Figure:
    """Nearest class direction on held-out images: accuracy by layer, against chance."""
    kinds = kinds_of(networks, "basins/final/")
    figure, axes = new_figure(3.0 * len(kinds) + 1.6, 2.8, columns=len(kinds))
    colours = colour_of(list(networks))
    for ax, kind in zip(axes, kinds, strict=True):
        for name, arrays in networks.items():
            for which, style in (("final", "-"), ("own", "--")):
                values = arrays.get(f"basins/{which}/{kind}")
                if values is not None:
                    mean, ci95 = mean_and_interval(values)
                    ax.fill_between(range(len(mean)), mean - ci95, mean + ci95, color=colours[name], alpha=0.15, lw=0)
                    ax.plot(mean, color=colours[name], ls=style, lw=1.5, label=name if style == "-" else None)
        chance = next(float(a["basins/chance"]) for a in networks.values() if "basins/chance" in a)
        ax.axhline(chance, color="black", lw=0.8, ls=":")
        ax.set_ylim(0, 1.02)
        mark_depth(ax, networks, kind)
    axes[0].set_ylabel("held-out images nearest\nto their class direction")
    for label, style in (("of the last layer", "-"), ("of the same layer", "--"), ("chance", ":")):
        axes[-1].plot([], [], color="black", lw=1, ls=style, label=label)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def pooled_ranks(networks: Mapping[str, Arrays]) -> Figure:
    """Rank of the updates of all images together, by step."""
    kinds = kinds_of(networks, "pooled/stable_rank/")
    figure, axes = new_figure(3.0 * len(kinds) + 1.3, 2.8, columns=len(kinds))
    colours = colour_of(list(networks))
    for ax, kind in zip(axes, kinds, strict=True):
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
        mark_depth(ax, networks, kind)
    axes[0].set_ylabel("rank of all updates x^(l+1) - x^(l)")
    for label, style in (("stable rank", "-"), ("effective rank", "--")):
        axes[-1].plot([], [], color="black", lw=1, ls=style, label=label)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def kicks(networks: Mapping[str, Arrays], kind: str) -> Figure:
    """Angle to the undisturbed trajectory over that of the kick: a panel for each network, a colour for each layer."""
    shown = {name: arrays for name, arrays in networks.items() if any(key.startswith("kicks/") for key in arrays)}
    figure, axes = new_figure(3.4 * len(shown) + 1.8, 3.0, columns=len(shown))
    for ax, (name, arrays) in zip(axes, shown.items(), strict=True):
        keys = [key.split("/") for key in arrays if key.startswith("kicks/") and key.endswith(f"/{kind}")]
        baseline: list[NDArray[np.float64]] = []
        layers, sizes = (sorted({float(key[i]) for key in keys}) for i in (2, 3))
        for _, way, layer, size, _ in keys:
            angles = kicked(arrays, f"kicks/{way}/{layer}/{size}/{kind}")
            if not len(angles):
                continue
            colour = COLOURS[layers.index(float(layer)) % len(COLOURS)]
            if way == "random":
                carried = kicked(arrays, f"carried/{way}/{layer}/{size}/{kind}")
                baseline.append(
                    np.pad((carried / carried[:, :1]).mean(axis=0), (int(layer), 0), constant_values=np.nan)
                )
            width = 0.6 + 1.4 * sizes.index(float(size)) / max(1, len(sizes) - 1)
            x = range(int(layer), int(layer) + angles.shape[1])
            ax.plot(x, (angles / angles[:, :1]).mean(axis=0), lw=width, color=colour, ls=WAYS[way])
        for curve in baseline:
            ax.plot(curve, color="black", lw=0.8, ls=":")
        ax.axhline(1.0, color="black", lw=0.6)
        mark_depth(ax, networks, name)
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    axes[0].set_ylabel(f"{kind}: angle to the clean\ntrajectory over that of the kick")
    entries = [(f"kick at layer {layer:.0f}", COLOURS[i % len(COLOURS)], "-", 1.5) for i, layer in enumerate(layers)]
    entries += [("random direction", "black", "-", 1.0), ("toward another class", "black", "--", 1.0)]
    entries += [("random, carried along unchanged", "black", ":", 0.8)]
    entries += [(f"thin to thick: size {', '.join(f'{size:g}' for size in sizes)}", "none", "-", 0.0)]
    for label, colour, style, width in entries:
        axes[-1].plot([], [], color=colour, lw=width, ls=style, label=label)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def hypothesis(networks: Mapping[str, Arrays]) -> Figure:
    """Measured error of surrogates, relative to the teacher's layer, against holding the start of each phase."""
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
            baseline = scale * arrays[f"hypothesis/held/{measure}"].mean(axis=0)
            ax.plot(baseline, color=colours[name], lw=1, ls="--")
        mark_depth(ax, shown, "all tokens" if measure == "relative" else "")
        ax.set_ylabel(label)
    axes[-1].plot([], [], color="black", lw=1, ls="--", label="start of the phase, held")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure
