"""Operators, perturbations and Jacobians of maps whose spectrum is known."""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from raptor.analysis import jacobian
from raptor.analysis.jacobian import jacobian_spectrum, linear_operator, on_sphere
from raptor.analysis.moments import Moments
from raptor.analysis.operators import fit_operator, identity_map, mean_error
from raptor.analysis.perturbation import contraction_rate, follow, perturb, random_direction
from raptor.analysis.sphere import angle, directions
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.tokens import TokenLayout

LAYOUT = TokenLayout(1, 0, 3)
D = 6


def rotation(theta: float) -> Tensor:
    R = torch.eye(D, dtype=torch.float64)
    c, s = math.cos(theta), math.sin(theta)
    R[:2, :2] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return R


def contraction(rho: float) -> Tensor:
    A = rho * torch.eye(D, dtype=torch.float64)
    A[0, 0] = 1.0
    return A


def trajectory(A: Tensor, x: Tensor, layers: int = 5) -> list[Tensor]:
    found = [x]
    for _ in range(layers):
        found.append(found[-1] @ A.T)
    return found


def moments_of(layers: list[Tensor]) -> Moments:
    moments = Moments(LAYOUT, LAYOUT.types)
    moments.update(layers)
    return moments


def start(images: int = 20, seed: int = 0) -> Tensor:
    return torch.randn(images, LAYOUT.num_tokens, D, generator=torch.Generator().manual_seed(seed)).double()


def test_operator_recovers_a_rotation() -> None:
    steps = moments_of(trajectory(rotation(0.3), start())).steps("patches", 1, 5)
    operator = fit_operator(steps, rank=D)
    angles = operator.eigenvalues.angle()
    assert operator.eigenvalues.abs() == pytest.approx(torch.ones(D), abs=1e-9)
    assert sorted(angles.tolist()) == pytest.approx([-0.3, 0, 0, 0, 0, 0.3], abs=1e-6)
    assert operator.affine().error(steps) < 1e-10


def test_operator_recovers_a_contraction_and_predicts_others() -> None:
    fitted = moments_of(trajectory(contraction(0.8), start()))
    operator = fit_operator(fitted.steps("patches", 0, 5), rank=D)
    assert operator.eigenvalues.real == pytest.approx(torch.tensor([1.0] + [0.8] * 5), abs=1e-9)
    held_out = trajectory(contraction(0.8), start(seed=1))
    steps = moments_of(held_out).steps("patches", 0, 5)
    assert operator.affine().error(steps) < 1e-12
    x = torch.cat([LAYOUT.select(v, "patches").flatten(0, 1) for v in held_out[:-1]])
    following = torch.cat([LAYOUT.select(v, "patches").flatten(0, 1) for v in held_out[1:]])
    assert identity_map(x[0]).error(steps) == pytest.approx((following - x).square().sum(1).mean().item(), rel=1e-12)
    constant = torch.arange(D, dtype=torch.float64)
    assert mean_error(steps, constant) == pytest.approx((following - constant).square().sum(1).mean().item(), rel=1e-12)


def test_error_by_moments_is_that_of_the_samples() -> None:
    layers = trajectory(torch.randn(D, D, generator=torch.Generator().manual_seed(3)).double() / 3, start(), 3)
    steps = moments_of(layers).steps("patches", 0, 3)
    operator = fit_operator(steps, rank=2)  # too small to be exact
    x = torch.cat([LAYOUT.select(v, "patches").flatten(0, 1) for v in layers[:-1]])
    following = torch.cat([LAYOUT.select(v, "patches").flatten(0, 1) for v in layers[1:]])
    direct = (following - operator.affine().apply(x)).square().sum(1).mean().item()
    assert operator.affine().error(steps) == pytest.approx(direct, rel=1e-9)
    assert direct > 1e-3
    assert direct < identity_map(x[0]).error(steps)


def test_translation_is_explained_by_the_intercept() -> None:
    offset = torch.linspace(-1, 2, D, dtype=torch.float64)
    layers = [start() + layer * offset for layer in range(6)]
    steps = moments_of(layers).steps("patches", 0, 5)
    power = float(steps.after.diagonal().sum()) / steps.count
    for rank in (1, 3, D):
        operator = fit_operator(steps, rank)
        assert operator.shift == pytest.approx(offset)
        assert operator.eigenvalues.abs() == pytest.approx(torch.ones(rank), abs=1e-6)  # nothing but the shift
        assert operator.affine().error(steps) < 1e-6 * power
    held_out = moments_of([x + 1 for x in layers]).steps("patches", 0, 5)
    assert operator.affine().error(held_out) < 1e-6 * power
    # without an intercept, a linear map of rank 1 leaves most of it
    x = torch.cat([LAYOUT.select(v, "patches").flatten(0, 1) for v in layers[:-1]])
    following = x + offset
    u = torch.linalg.eigh(x.T @ x).eigenvectors[:, -1:]
    linear = x + (x @ u) @ torch.linalg.lstsq(x @ u, following - x).solution
    assert (following - linear).square().sum(1).mean() > 0.1 * offset.square().sum()


def test_samples_that_are_all_alike_have_a_shift_and_no_spectrum() -> None:
    point = torch.linspace(0, 1, D, dtype=torch.float64).expand(3, LAYOUT.num_tokens, D)
    operator = fit_operator(moments_of([point, 2 * point]).step("cls", 0), rank=4)
    assert operator.eigenvalues.numel() == 0
    assert operator.affine().apply(point[0, :1]) == pytest.approx(2 * point[0, :1])


def test_moments_of_distant_layers_are_sums_over_tokens() -> None:
    layers = trajectory(rotation(0.2), start(3), 4)
    moments = Moments(LAYOUT, ["patches"], [(0, 3), (1, 4)])
    for part in (slice(0, 2), slice(2, 3)):
        moments.update([x[part] for x in layers])
    x, y = (LAYOUT.select(layers[i], "patches").flatten(0, 1) for i in (1, 4))
    found = moments.pair("patches", 1, 4)
    assert found.cross == pytest.approx(y.T @ x)
    assert found.after == pytest.approx(y.T @ y)
    assert found.total_before == pytest.approx(x.sum(0))
    assert found.count == 9


def follow_linear(A: Tensor, size: float, layers: int = 5) -> Tensor:
    """Angles by layer after a small perturbation of the fixed point of a linear map."""
    fixed = torch.eye(D, dtype=torch.float64)[0].expand(4, LAYOUT.num_tokens, D)
    noise = torch.stack([random_direction((LAYOUT.num_tokens, D), seed) for seed in range(4)])

    def steps(x: Tensor, layer: int) -> Iterator[Tensor]:
        yield from trajectory(A, x, layers - layer)[1:]

    clean = trajectory(A, fixed, layers)
    return follow(steps, clean, 1, perturb(fixed, noise, size), LAYOUT)["patches"]


@pytest.mark.parametrize("rho", [0.5, 0.9, 1.1])
def test_perturbations_shrink_at_the_rate_of_a_linear_contraction(rho: float) -> None:
    angles = follow_linear(contraction(rho), 1e-4)
    assert angles[:, 0] == pytest.approx(torch.full((4,), math.atan(1e-4)), rel=1e-9)
    assert contraction_rate(angles) == pytest.approx(torch.full((4,), rho), rel=1e-6)


def test_rotations_neither_shrink_nor_grow_a_perturbation() -> None:
    assert contraction_rate(follow_linear(rotation(0.4), 0.3)) == pytest.approx(torch.ones(4), abs=1e-9)


def test_perturbation_turns_by_the_arctangent_of_its_size() -> None:
    x = start()
    perturbed = perturb(x, random_direction(x.shape, 1), 0.5)
    assert angle(directions(x), directions(perturbed)) == pytest.approx(
        torch.full(x.shape[:2], math.atan(0.5)), abs=1e-9
    )
    assert torch.equal(perturb(x, x, 0.5), x)  # a displacement along the token itself does not turn it


def test_jacobian_of_linear_maps() -> None:
    x = start(1)
    found = jacobian_spectrum(lambda v: v @ contraction(0.7).T, x, count=5, tol=1e-8)
    # one eigenvalue 1 for each of the four tokens, then 0.7
    assert found["eigenvalues"].real == pytest.approx([1, 1, 1, 1, 0.7], abs=1e-6)
    assert found["singular"] == pytest.approx([1, 1, 1, 1, 0.7], abs=1e-6)
    turned = jacobian_spectrum(lambda v: 3 * v @ rotation(0.5).T, x, count=2, tol=1e-8)
    assert turned["singular"] == pytest.approx([3, 3], abs=1e-6)
    assert np.abs(turned["eigenvalues"]) == pytest.approx([3, 3], abs=1e-6)
    # directions turn, whatever the factor on the norm: no angle grows
    assert turned["angular_singular"] == pytest.approx([1, 1], abs=1e-6)


def test_angular_jacobian_at_the_fixed_point_of_a_contraction() -> None:
    fixed = torch.eye(D, dtype=torch.float64)[0].expand(1, LAYOUT.num_tokens, D).clone()
    found = jacobian_spectrum(lambda v: 2 * v @ contraction(0.7).T, fixed, count=3, tol=1e-8)
    assert found["angular_singular"] == pytest.approx([0.7] * 3, abs=1e-6)


@pytest.mark.parametrize("angular", [False, True])
def test_jacobian_of_a_tied_block_is_the_dense_one(angular: bool) -> None:
    torch.manual_seed(0)
    block = RecurrentBlock(BlockConfig(width=D, num_heads=2, layer_scale=0.5)).double()
    x = start(1)

    def step(v: Tensor) -> Tensor:
        return block(v, torch.tensor(3))

    function = on_sphere(step, x.norm(dim=-1, keepdim=True)) if angular else step
    at = directions(x) if angular else x
    dense = torch.autograd.functional.jacobian(function, at).reshape(x.numel(), x.numel())
    found = jacobian_spectrum(step, x, count=4, tol=1e-8)
    prefix = "angular_" if angular else ""
    singular = torch.linalg.svdvals(dense)[:4]
    assert found[f"{prefix}singular"] == pytest.approx(singular.detach().numpy(), rel=1e-5)
    if not angular:
        eigenvalues = torch.linalg.eigvals(dense).abs().sort(descending=True).values[:3]
        assert np.abs(found["eigenvalues"])[:3] == pytest.approx(eigenvalues.detach().numpy(), rel=1e-4)
    J = linear_operator(function, at)
    v, w = (np.random.default_rng(i).standard_normal(x.numel()) for i in (0, 1))
    assert w @ J.matvec(v) == pytest.approx(v @ J.rmatvec(w), rel=1e-9)  # the two ways are each other's transpose


def test_singular_values_that_do_not_converge_are_missing_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobian, "eigsh", partial(eigsh, maxiter=1, ncv=6))
    A = torch.diag(torch.linspace(1.0, 70.0, LAYOUT.num_tokens * D))
    found = jacobian.jacobian_spectrum(lambda v: (v.flatten() @ A).reshape(v.shape), start(1), count=4, tol=1e-12)
    converged = found["singular"][~np.isnan(found["singular"])]
    assert len(converged) < 4
    assert (converged <= 70 + 1e-6).all()
