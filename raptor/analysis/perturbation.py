"""Perturb a layer, and follow the angle to the clean trajectory: self-correction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from raptor.analysis.sphere import angle, directions, tangent
from raptor.models.tokens import TokenLayout

Steps = Callable[[Tensor, int], Iterable[Tensor]]


def random_direction(shape: Sequence[int], seed: int) -> Tensor:
    """Draw Gaussian noise of one image, ``(N, D)``: a function of the seed alone, whatever the batch and the device."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturb(x: Tensor, towards: Tensor, size: float) -> Tensor:
    """Displace tokens sideways by a share of their own length.

    Parameters
    ----------
    x
        Tokens ``(B, N, D)``.
    towards
        Directions of the displacement, to be broadcast; only what is orthogonal to each token counts.
    size
        Relative size r: the angle to the clean token becomes arctan r.
    """
    u = directions(x)
    displaced = x.double() + size * x.double().norm(dim=-1, keepdim=True) * tangent(towards.expand_as(u), u)
    return displaced.to(x.dtype)


def follow(
    steps: Steps, layers: Sequence[Tensor], start: int, perturbed: Tensor, layout: TokenLayout
) -> dict[str, Tensor]:
    """Measure the angle between a perturbed and the clean trajectory.

    Parameters
    ----------
    steps
        Gives the layers after ``start`` from the tokens of ``start``.
    layers
        Clean layers 0..L, each ``(B, N, D)``.
    start
        Layer that was perturbed.
    perturbed
        Its tokens afterwards, ``(B, N, D)``.
    layout
        Order of the tokens.

    Returns
    -------
    dict
        By token type the mean angle over tokens at the layers start..L, ``(B, L - start + 1)``, radians, on the CPU.
    """
    angles: dict[str, list[Tensor]] = {kind: [] for kind in layout.types}
    for layer, x in enumerate([perturbed, *steps(perturbed, start)], start=start):
        apart = angle(directions(x), directions(layers[layer]))
        for kind in layout.types:
            angles[kind].append(apart[:, layout.slice(kind)].mean(dim=1).cpu())
    return {kind: torch.stack(values, dim=1) for kind, values in angles.items()}


def constant_offset(layers: Sequence[Tensor], displacement: Tensor) -> Steps:
    """Make the baseline of :func:`follow`: the displacement ``(B, N, D)`` stays as it is while the token moves on.

    Its angle changes as well, mostly because tokens grow: what shrinks no faster than this corrects nothing.
    """
    return lambda _, start: (x + displacement for x in layers[start + 1 :])


def contraction_rate(angles: Tensor) -> Tensor:
    """Fit the factor by which the angle changes from one layer to the next, by least squares on its logarithm.

    Parameters
    ----------
    angles
        ``(B, n)`` with n >= 2, radians, from the perturbed layer on.

    Returns
    -------
    Tensor
        ``(B,)``: below 1 the perturbation shrinks, above 1 it grows. Angles under 1e-12 count as 1e-12.
    """
    y = angles.clamp(min=1e-12).log()
    t = torch.arange(angles.shape[1], dtype=y.dtype)
    t = t - t.mean()
    return ((y * t).sum(dim=1) / (t * t).sum()).exp()
