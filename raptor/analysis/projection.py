"""Trajectories in a plane: principal components, and the great circle from start to end."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from raptor.analysis.sphere import directions, great_circle

Points = NDArray[np.floating]


def principal_components(points: Points, count: int = 2) -> tuple[Points, Points]:
    """Coordinates of points in their leading principal components.

    Parameters
    ----------
    points
        ``(n, L+1, D)``; all images and layers count alike.
    count
        Number of components.

    Returns
    -------
    coordinates, shares
        ``(n, L+1, count)``, and the share of the variance along each component.
    """
    flat = points.reshape(-1, points.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    left, values, _ = np.linalg.svd(flat, full_matrices=False)
    power = values**2
    shares = power[:count] / max(power.sum(), np.finfo(np.float64).tiny)
    return (left[:, :count] * values[:count]).reshape(*points.shape[:2], -1), shares


def along_great_circle(points: Points) -> tuple[Points, Points]:
    """Where each trajectory stands relative to the great circle from its own start to its own end.

    Parameters
    ----------
    points
        Unit vectors ``(n, L+1, D)``.

    Returns
    -------
    along, off
        ``(n, L+1)`` each, radians: a trajectory that keeps to the shortest way has ``off`` 0 and ``along`` rising.
    """
    u = directions(torch.from_numpy(np.asarray(points)))
    along, off = great_circle(u, u[:, :1], u[:, -1:])
    return along.numpy(), off.numpy()
