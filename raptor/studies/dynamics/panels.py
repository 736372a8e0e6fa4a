"""Lay out the figures of dynamics: panels by token type, a colour for each network, phase boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.style import NEUTRAL, new_figure
from raptor.studies.dynamics.rules import Arrays

COLOURS = ("#2b6ca3", "#b5442e", "#1f9e89", "#8a6bb1", "#c98b1b", "#5b4636")


def colour_of(networks: Sequence[str]) -> dict[str, str]:
    """Choose a colour for each network, grey for those without training."""
    trained = [name for name in networks if name not in ("untrained", "random weights")]
    return {name: COLOURS[trained.index(name) % len(COLOURS)] if name in trained else NEUTRAL for name in networks}


def kinds_of(networks: Mapping[str, Arrays], prefix: str) -> list[str]:
    """List the token types for which some network has arrays that begin so."""
    kinds = {key.rsplit("/", 1)[1] for arrays in networks.values() for key in arrays if key.startswith(prefix)}
    return [kind for kind in TOKEN_TYPES if kind in kinds]


def mark_depth(ax: Axes, networks: Mapping[str, Arrays], title: str) -> None:
    """Label depth and draw the phase boundaries."""
    for boundary in next(iter(networks.values()))["boundaries"]:
        ax.axvline(boundary + 0.5, color=NEUTRAL, lw=0.8, ls=":")
    ax.set(title=title, xlabel="layer")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def type_panels(networks: Mapping[str, Arrays], prefix: str, beside: float = 1.3) -> tuple[Figure, dict[str, Axes]]:
    """Make a panel over depth for each token type with arrays below ``prefix``, and room in inches for a legend."""
    kinds = kinds_of(networks, prefix)
    figure, axes = new_figure(3.0 * len(kinds) + beside, 2.8, columns=len(kinds))
    for ax, kind in zip(axes, kinds, strict=True):
        mark_depth(ax, networks, kind)
    return figure, dict(zip(kinds, axes, strict=True))


def ends_of(panels: Mapping[str, Axes]) -> tuple[Axes, Axes]:
    """Return the first panel, for the label of the vertical axis, and the last, for the legend."""
    axes = list(panels.values())
    return axes[0], axes[-1]


def plain_log(ax: Axes) -> None:
    """Make an axis logarithmic, with plain numbers also between the powers of ten where there are few of those."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    for subs in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        locator = LogLocator(subs=subs)
        few = sum(low <= tick <= high for tick in locator.tick_values(low, high)) < 3
        if not few:
            break
    ax.yaxis.set_major_locator(locator)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}" if few else NullFormatter())
