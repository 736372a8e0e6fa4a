"""Spectrum of the Jacobian of one step of depth, without ever forming it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from raptor.analysis.sphere import directions

Map = Callable[[Tensor], Tensor]
log = logging.getLogger(__name__)


def on_sphere(step: Map, norms: Tensor) -> Map:
    """Make the map of directions under a step: u -> direction of step(|x| u), with fixed norms |x|.

    Parameters
    ----------
    step
        Tokens ``(1, N, D)`` to tokens ``(1, N, D)``.
    norms
        Norms of the tokens, ``(1, N, 1)``.
    """

    def unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    return lambda u: unit(step(norms * unit(u)))


def linear_operator(step: Map, at: Tensor) -> LinearOperator:
    """Build the Jacobian of a map at a point from its products: forward (jvp) and backward (vjp).

    Parameters
    ----------
    step
        Any differentiable map that keeps the shape.
    at
        The point.

    Returns
    -------
    LinearOperator
        Square, of the number of elements of ``at``.
    """
    size = at.numel()

    def tensor(v: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64)).reshape(at.shape).to(at)

    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # fused kernels have no forward derivative
        warnings.simplefilter("ignore")  # of torch about its own tracing
        pull_back = torch.func.vjp(step, at)[1]
        push_forward = _linearized(step, at)

    def forward(v: NDArray[Any]) -> NDArray[Any]:
        return push_forward(tensor(v)).detach().double().cpu().numpy().ravel()

    def backward(v: NDArray[Any]) -> NDArray[Any]:
        return pull_back(tensor(v))[0].detach().double().cpu().numpy().ravel()

    return LinearOperator((size, size), matvec=forward, rmatvec=backward, dtype=np.float64)


def _linearized(step: Map, at: Tensor) -> Map:
    """Products with the Jacobian, at less than half the cost of jvp, which goes through the point itself every time."""

    def jvp(v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.jvp(step, (at,), (v,))[1]

    linear: Map = torch.func.linearize(step, at)[1]
    # torch's tracing must agree with its own jvp, which it does not for maps that write in place
    probe = torch.linspace(-1, 1, at.numel(), dtype=at.dtype, device=at.device).reshape(at.shape)
    expected = jvp(probe)
    if torch.allclose(linear(probe), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        return linear
    log.warning("this step cannot be linearised once for all: every product goes through it again")
    return jvp


def jacobian_spectrum(
    step: Map, x_1ND: Tensor, count: int, seed: int = 0, tol: float = 1e-3
) -> dict[str, NDArray[Any]]:
    """Largest singular values and eigenvalues of the Jacobian of one step at a state.

    By Arnoldi and Lanczos iterations (ARPACK), which need products with the Jacobian and its transpose only.

    Parameters
    ----------
    step
        Tokens ``(1, N, D)`` of a layer to those of the next.
    x_1ND
        The state.
    count
        How many of each.
    seed
        Of the vectors to begin with.
    tol
        Residual that the iterations stop at, relative to the value; J is far from normal, so that eigenvalues can be
        off by more.

    Returns
    -------
    dict
        ``singular``, real, and ``eigenvalues``, complex, of the Jacobian d step / d x, the largest first; and
        ``angular_singular``, of the map of directions (:func:`on_sphere`), the largest of which bounds how fast small
        angles grow in that step. (That map leads from one tangent space to another, so it has no eigenvalues to speak
        of.) What did not converge is NaN.
    """
    begin = np.random.default_rng(seed).standard_normal(x_1ND.numel())
    sphere = on_sphere(step, x_1ND.norm(dim=-1, keepdim=True))
    J = linear_operator(step, x_1ND)
    return {
        "singular": _singular_values(J, count, v0=begin, tol=tol),
        "eigenvalues": _converged(eigs, J, count, v0=begin, tol=tol).astype(complex),
        "angular_singular": _singular_values(
            linear_operator(sphere, directions(x_1ND).to(x_1ND)), count, v0=begin, tol=tol
        ),
    }


def _singular_values(J: LinearOperator, count: int, **options: Any) -> NDArray[Any]:
    normal = LinearOperator(J.shape, matvec=lambda v: J.rmatvec(J.matvec(v)), dtype=np.float64)
    return np.sqrt(np.maximum(_converged(eigsh, normal, count, **options).real, 0.0))


def _converged(solve: Callable[..., NDArray[Any]], A: LinearOperator, count: int, **options: Any) -> NDArray[Any]:
    """Eigenvalues of A, the largest modulus first; NaN at the end for those that did not converge."""
    # OpenBLAS's threads and torch's would wait for each other's: a third of the speed
    one_thread = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    try:
        with one_thread:
            values = np.asarray(solve(A, count, return_eigenvectors=False, **options))
    except ArpackNoConvergence as error:
        values = np.asarray(error.eigenvalues)[:count]
    values = values[np.argsort(-np.abs(values))]
    return np.concatenate([values, np.full(count - len(values), np.nan)])
