"""Measure the block-recurrent hypothesis: how far every layer of a surrogate is from its teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.analysis.sphere import angle, directions
from raptor.models.tokens import TokenLayout


def recurrence_error(layers: Sequence[Tensor], surrogate: Sequence[Tensor], layout: TokenLayout) -> dict[str, Tensor]:
    """Measure the error eps_l = |f_l(x) - s_l(x)|_F of the layers of a surrogate, for each image.

    Parameters
    ----------
    layers, surrogate
        The teacher's layers f_0..f_L and those that stand for them, each ``(B, N, D)``.
    layout
        Order of the tokens.

    Returns
    -------
    dict
        ``eps`` over all tokens; ``relative``, eps_l / |f_l(x)|_F; and by token type ``relative_<type>`` and
        ``angle_<type>``, the mean angle between tokens in radians. Each ``(B, L+1)`` in float64 on the CPU.
    """
    errors: dict[str, list[Tensor]] = {}
    for f, s in zip(layers, surrogate, strict=True):
        f, s = f.double(), s.double()
        values = {"eps": (f - s).flatten(1).norm(dim=1)}
        values["relative"] = values["eps"] / f.flatten(1).norm(dim=1)
        apart = angle(directions(f), directions(s))
        for kind in layout.types:
            theirs, ours = layout.select(f, kind).flatten(1), layout.select(s, kind).flatten(1)
            values[f"relative_{kind}"] = (theirs - ours).norm(dim=1) / theirs.norm(dim=1)
            values[f"angle_{kind}"] = apart[:, layout.slice(kind)].mean(dim=1)
        for name, value in values.items():
            errors.setdefault(name, []).append(value.cpu())
    return {name: torch.stack(parts, dim=1) for name, parts in errors.items()}


def hold_phase_start(layers: Sequence[Tensor], boundaries: Sequence[int]) -> list[Tensor]:
    """Make the zero-order hold, a baseline of :func:`recurrence_error`: the layer at the start of each phase stays."""
    starts = [0, *boundaries]
    return [layers[max((b for b in starts if b < index), default=0)] for index in range(len(layers))]
