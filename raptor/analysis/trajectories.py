"""Curves over depth, one for each image: convergence, angular speed, norm, coherence, rank of updates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raptor.analysis.rank import effective_rank, spectrum, stable_rank
from raptor.analysis.sphere import angle, directions
from raptor.models.tokens import TokenLayout

Curves = dict[str, dict[str, Tensor]]


def convergence(x: Tensor, end: Tensor) -> Tensor:
    """Directional convergence gamma_l = <x^_l, x^_L> of unit vectors ``(..., D)``."""
    return (x * end).sum(-1)


def angular_speed(x: Tensor, following: Tensor) -> Tensor:
    """Angle s_l = arccos <x^_{l+1}, x^_l> from one layer to the next, of unit vectors ``(..., D)``, in radians."""
    return angle(x, following)


def coherence(u: Tensor) -> Tensor:
    """Mean cosine of directions to their mean direction.

    Parameters
    ----------
    u
        Unit vectors ``(..., N, D)``.

    Returns
    -------
    Tensor
        ``(...)``, 0..1: 1 where all are equal, about 1/sqrt(N) where they are random, 0 where they cancel out.
    """
    return u.mean(dim=-2).norm(dim=-1)


def image_curves(layers: Sequence[Tensor], layout: TokenLayout, *, ranks: bool = True) -> Curves:
    """All measures of a batch that need one image at a time.

    Every value is the mean over the tokens of a type; the rest of a summary (mean, interval over images) is left to the
    caller, so that batches of any size give the same values.

    Parameters
    ----------
    layers
        Layers 0..L, each ``(B, N, D)``, before the final norm.
    layout
        Order of the tokens.
    ranks
        Whether to decompose the updates of each image too, which costs the most.

    Returns
    -------
    dict
        By measure and token type, float64 on the CPU. Of layers 0..L, ``(B, L+1)``: ``convergence``, ``norm``, and for
        types of several tokens ``coherence``. Of the steps l -> l+1, ``(B, L)``: ``speed`` in radians, and for types of
        several tokens ``stable_rank`` and ``effective_rank`` of the angular updates x^_{l+1} - x^_l of the image.
    """
    curves: dict[str, dict[str, list[Tensor]]] = {}

    def add(measure: str, kind: str, values: Tensor) -> None:
        curves.setdefault(measure, {}).setdefault(kind, []).append(values.cpu())

    end, u = directions(layers[-1]), torch.empty(0)
    for index, x in enumerate(layers):
        before, u = u, directions(x)
        per_token = {"convergence": convergence(u, end), "norm": x.double().norm(dim=-1)}
        if index:
            per_token["speed"] = angular_speed(before, u)
        for kind in layout.types:
            positions = layout.slice(kind)
            for measure, values in per_token.items():
                add(measure, kind, values[:, positions].mean(dim=1))
            if positions.stop - positions.start > 1:
                add("coherence", kind, coherence(layout.select(u, kind)))
                if index and ranks:
                    powers = spectrum(layout.select(u - before, kind))
                    add("stable_rank", kind, stable_rank(powers))
                    add("effective_rank", kind, effective_rank(powers))
    return {m: {kind: torch.stack(parts, dim=1) for kind, parts in by.items()} for m, by in curves.items()}
