"""Geometry of the unit sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def directions(x: Tensor) -> Tensor:
    """Directions x^ = x / |x| of vectors ``(..., D)``, in float64; zero stays zero."""
    return F.normalize(x.double(), dim=-1)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between unit vectors ``(..., D)``, in radians, 0..pi.

    arccos <a, b>, computed as 2 atan2(|a - b|, |a + b|), which keeps small angles that arccos rounds away.
    """
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def tangent(v: Tensor, at: Tensor) -> Tensor:
    """Project ``v`` onto the tangent space at unit vectors, and normalise: ``(..., D)``; zero stays zero."""
    v = v.double()
    sideways = v - (v * at).sum(-1, keepdim=True) * at
    rounding = sideways.norm(dim=-1, keepdim=True) < 1e-12 * v.norm(dim=-1, keepdim=True)
    return directions(sideways.masked_fill(rounding, 0.0))


def great_circle(u: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Where directions stand relative to the great circle from one direction to another.

    Parameters
    ----------
    u
        Unit vectors ``(..., D)``.
    start, end
        Unit vectors that span the circle, to be broadcast with ``u``.

    Returns
    -------
    along, off
        Angle along the circle from ``start`` towards ``end``, -pi..pi, and angle off its plane, 0..pi/2, in radians.
    """
    e2 = tangent(end, start)
    x, y = (u * start).sum(-1), (u * e2).sum(-1)
    off = u - x[..., None] * start - y[..., None] * e2
    return torch.atan2(y, x), torch.atan2(off.norm(dim=-1), torch.hypot(x, y))
