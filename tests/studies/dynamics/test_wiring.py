"""Dynamics of networks whose every step is a known linear map: each measure comes of the right layers and images."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from raptor.data.module import ImageData
from raptor.models.backbone import Backbone
from raptor.models.surrogate import Surrogate
from raptor.models.tokens import TokenLayout
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.findings import evaluate_findings
from raptor.studies.dynamics.measure import Dynamics
from raptor.studies.dynamics.options import JacobianOptions, MeasureOptions, OperatorOptions, PerturbationOptions
from raptor.studies.dynamics.summary import jumps_table

Arrays = dict[str, np.ndarray]

# step l takes what is along the axis e0 times GROWTH[l], shrinks what is beside it by SHRINK[l] against that, and turns
# it about the axis by TURN[l]
GROWTH = np.array([1.5, 1.2, 1.7, 1.1, 1.4])
SHRINK = np.array([0.9, 0.6, 0.8, 0.5, 0.7])
TURN = np.array([0.3, 0.8, 0.5, 1.1, 0.4])
L = len(GROWTH)
IMAGES, HALF, PERTURBED, SIZE = 13, 6, 5, 0.5
BOUNDARIES = [2]
LAYOUT = TokenLayout(cls=1, registers=0, patches=2)
OPTIONS = MeasureOptions(
    shown=3,
    operators=OperatorOptions(rank=3, tokens=["patches"]),
    perturbation=PerturbationOptions(images=PERTURBED, sizes=[SIZE], layers=[1, 3]),
    jacobian=JacobianOptions(images=2, values=3),
)


class Known(Backbone):
    """Images are tokens; every step is its known map, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        nn.Module.__init__(self)  # there is no ViT around it
        self.num_layers = L
        self.maps = [factor * torch.from_numpy(known_map(step)) for step in range(L)]

    @property
    def layout(self) -> TokenLayout:
        return LAYOUT

    @property
    def num_classes(self) -> int:
        return 0

    def embed(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW[:, 0].double()

    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        for A in self.maps[start : self.check_range(start, end)]:
            x_BND = x_BND @ A.T
            yield x_BND

    def block_of(self, layer: int) -> int:
        return layer - 1

    def to_config(self) -> dict[str, Any]:
        return {}


class KnownSurrogate(Known, Surrogate):
    """The same with phases of its own, for Dynamics asks a surrogate for them."""

    def __init__(self, factor: float, boundaries: list[int]) -> None:
        super().__init__(factor)
        self.boundaries = boundaries


def known_map(step: int) -> np.ndarray:
    c, s = SHRINK[step] * np.cos(TURN[step]), SHRINK[step] * np.sin(TURN[step])
    return GROWTH[step] * np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


class Tokens(ImageData):
    """A class token on the axis, and two patches beside it: on one side or the other, by class; all angles differ."""

    @property
    def num_classes(self) -> int:
        return 3  # no image is of the last one

    def datasets(self, input_shape: tuple[int, int, int]) -> tuple[TensorDataset, TensorDataset]:
        labels = torch.arange(IMAGES) % 2
        angles = (0.2 + 0.05 * torch.arange(IMAGES)) * (1 - 2 * labels)
        angles = torch.stack([0 * angles, angles, angles / 2], dim=1)
        norms = 1 + torch.arange(3) + 0.1 * torch.arange(IMAGES)[:, None]
        tokens = norms[..., None] * torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=-1)
        images = TensorDataset(tokens[:, None], labels)
        return images, images


@pytest.fixture(scope="module")
def batches() -> ImageBatches:
    """The half that fits ends within a batch, and perturbed images fill more than one."""
    data = Tokens(name="tokens")
    data.prepare((1, 3, 3), [0.0], [1 / 255])
    return ImageBatches(data, "val", IMAGES, 4, torch.device("cpu"))


@pytest.fixture(scope="module")
def found(batches: ImageBatches) -> Arrays:
    return Dynamics(Known(), batches, OPTIONS).measure("known", BOUNDARIES)


@pytest.fixture(scope="module")
def layers(batches: ImageBatches) -> np.ndarray:
    """All layers of all images in their order: ``(B, L+1, N, D)``."""
    x = torch.cat([images[:, 0].double() for _, images, _ in batches.batches(range(IMAGES))])
    return np.stack([x.numpy(), *(y.numpy() for y in Known().steps(x))], axis=1)


@pytest.fixture(scope="module")
def slopes(layers: np.ndarray) -> np.ndarray:
    """Signed slope of each token against the axis, by layer: ``(B, L+1, N)``."""
    start = layers[:, :1, :, 1] / layers[:, :1, :, 0]
    return start * np.array([SHRINK[:layer].prod() for layer in range(L + 1)])[:, None]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def since(factors: np.ndarray, start: int, end: int = L) -> np.ndarray:
    """What factors of steps come to at the layers from ``start`` to ``end``, 1 at the first."""
    return np.cumprod([1.0, *factors[start:end]])


def test_the_halves_differ(found: Arrays, slopes: np.ndarray) -> None:
    """Else a measure on the wrong half would not show."""
    assert set(found["labels"][:HALF]) == set(found["labels"][HALF:]) == {0, 1}
    assert len(np.unique(np.abs(slopes[:, 0, 1]).round(6))) == IMAGES


@pytest.mark.parametrize("start", [1, 3])
def test_random_perturbations_shrink_and_offsets_lose_angle_by_the_known_factors(found: Arrays, start: int) -> None:
    angles, offset = (found[f"{what}/random/{start}/{SIZE}/cls"] for what in ("perturbed", "constant_offset"))
    assert angles == pytest.approx(np.tile(np.arctan(SIZE * since(SHRINK, start)), (PERTURBED, 1)), rel=1e-6)
    assert offset == pytest.approx(np.tile(np.arctan(SIZE / since(GROWTH, start)), (PERTURBED, 1)), rel=1e-6)


@pytest.mark.parametrize("start", [1, 3])
def test_class_perturbations_lead_held_out_images_toward_the_other_class(
    found: Arrays, slopes: np.ndarray, start: int
) -> None:
    """In the plane of the axis and the classes of that layer, which turns with depth: away from the other class, or
    along directions of another layer, the angles would be others.
    """
    at = np.arctan(slopes[HALF : HALF + PERTURBED, start, 1:])
    perturbed = at - np.sign(at) * np.arctan(SIZE)
    after = np.arctan(np.tan(perturbed)[:, None] * since(SHRINK, start)[:, None])
    clean = np.arctan(slopes[HALF : HALF + PERTURBED, start:, 1:])
    expected = np.abs(after - clean).mean(axis=-1)
    assert found[f"perturbed/class/{start}/{SIZE}/patches"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("start", [1, 3])
def test_constant_offsets_stay_as_they_are(found: Arrays, layers: np.ndarray, start: int) -> None:
    x = layers[HALF : HALF + PERTURBED, start, 1:]
    u, axis = unit(x), np.eye(3)[0]
    towards = unit(axis - (u @ axis)[..., None] * u)  # the other class lies across the axis
    displacement = SIZE * np.linalg.norm(x, axis=-1, keepdims=True) * towards
    later = layers[HALF : HALF + PERTURBED, start:, 1:]
    cosines = (unit(later + displacement[:, None]) * unit(later)).sum(-1)
    assert found[f"constant_offset/class/{start}/{SIZE}/patches"] == pytest.approx(
        np.arccos(cosines).mean(-1), rel=1e-5
    )


def test_class_directions_come_of_the_first_half_only(found: Arrays, layers: np.ndarray) -> None:
    pooled, labels = unit(layers[:, :, 1:].mean(axis=2)), found["labels"]
    means = unit(np.stack([pooled[:HALF, -1][labels[:HALF] == c].sum(axis=0) for c in (0, 1)]))
    expected = (pooled[HALF:] * means[labels[HALF:]][:, None]).sum(-1)
    assert found["basins/class_mean/patches"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("last", [*BOUNDARIES, L])
def test_jacobians_are_of_the_last_step_of_each_phase(found: Arrays, slopes: np.ndarray, last: int) -> None:
    for key in ("singular", "eigenvalues"):
        assert found[f"jacobian/{last}/{key}"] == pytest.approx(np.full((2, 3), GROWTH[last - 1]), rel=1e-6)
    # at an angle b to the axis, one step changes angles by r / q within the plane of token and axis, r / sqrt(q) across
    r, cosines = SHRINK[last - 1], np.cos(np.arctan(slopes[HALF : HALF + 2, last - 1]))
    q = cosines**2 + r**2 * (1 - cosines**2)
    largest = -np.sort(-np.concatenate([r / q, r / np.sqrt(q)], axis=1))[:, :3]
    assert found[f"jacobian/{last}/angular_singular"] == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize(("start", "end"), [(0, 2), (2, 5)])
def test_operators_are_fitted_on_one_half_and_evaluated_on_the_other(
    found: Arrays, layers: np.ndarray, start: int, end: int
) -> None:
    u = unit(layers[:, :, 1:])
    (x, y), (x_held, y_held) = (
        (u[half, start:end].reshape(-1, 3), u[half, start + 1 : end + 1].reshape(-1, 3))
        for half in (slice(HALF), slice(HALF, None))
    )
    with_one, held_with_one = (np.concatenate([v, np.ones((len(v), 1))], axis=1) for v in (x, x_held))
    predictions = {
        "linear": held_with_one @ np.linalg.lstsq(with_one, y, rcond=None)[0],
        "shift": x_held + (y - x).mean(axis=0),
        "identity": x_held,
        "mean": y.mean(axis=0),
    }
    for name, predicted in predictions.items():
        error = float(found[f"operators/{start}-{end}/patches/{name}_error"])
        assert error == pytest.approx(((y_held - predicted) ** 2).sum(-1).mean(), rel=1e-6), name


@pytest.mark.parametrize("horizon", [None, 2])
def test_operators_over_several_steps(batches: ImageBatches, layers: np.ndarray, horizon: int | None) -> None:
    operators = replace(OPTIONS.operators, horizon=horizon)
    found = Dynamics(Known(), batches, replace(OPTIONS, operators=operators)).measure("known", BOUNDARIES)
    u = unit(layers[:, :, 1:])
    start, end, steps = 2, 5, horizon or 3
    ones = [np.concatenate([v, np.ones((*v.shape[:-1], 1))], axis=-1) for v in (u[:HALF], u[HALF:])]
    x, y = ones[0][:, start:end].reshape(-1, 4), u[:HALF, start + 1 : end + 1].reshape(-1, 3)
    A = np.linalg.lstsq(x, y, rcond=None)[0]
    last = u[:HALF, start + steps].reshape(-1, 3)
    predicted = ones[1][:, start].reshape(-1, 4)
    for _ in range(steps):
        power = predicted @ A
        predicted = np.concatenate([power, np.ones((len(power), 1))], axis=1)
    predictions = {
        "power": power,
        "endpoint": ones[1][:, start].reshape(-1, 4)
        @ np.linalg.lstsq(ones[0][:, start].reshape(-1, 4), last, rcond=None)[0],
        "identity": u[HALF:, start].reshape(-1, 3),
        "mean": last.mean(axis=0),
    }
    truth = u[HALF:, start + steps].reshape(-1, 3)
    assert int(found["multistep/2-5/patches/horizon"]) == steps
    for name, prediction in predictions.items():
        error = float(found[f"multistep/2-5/patches/{name}_error"])
        assert error == pytest.approx(((truth - prediction) ** 2).sum(-1).mean(), rel=1e-5, abs=1e-12), name


def test_the_surrogate_of_operators_follows_the_phases(found: Arrays, layers: np.ndarray) -> None:
    u = unit(layers[:, :, 1:])
    x = u[HALF:, 0].reshape(-1, 3)
    rolled = [x]
    for start, end in ((0, 2), (2, 5)):
        before = u[:HALF, start:end].reshape(-1, 3)
        ones = np.concatenate([before, np.ones((len(before), 1))], axis=1)
        A = np.linalg.lstsq(ones, u[:HALF, start + 1 : end + 1].reshape(-1, 3), rcond=None)[0]
        for _ in range(start, end):
            rolled.append(np.concatenate([rolled[-1], np.ones((len(x), 1))], axis=1) @ A)
    cosines = [(unit(p) * u[HALF:, layer].reshape(-1, 3)).sum(-1) for layer, p in enumerate(rolled)]
    expected = np.stack(cosines, axis=-1).reshape(IMAGES - HALF, 2, L + 1).mean(axis=1)
    assert found["rollout/linear/patches"] == pytest.approx(expected, abs=1e-6)
    unchanged = (u[HALF:, :1] * u[HALF:]).sum(-1).mean(-1)
    assert found["rollout/identity/patches"] == pytest.approx(unchanged, abs=1e-9)
    assert "agreement/linear" not in found  # class tokens have no operator


def test_error_of_a_surrogate_is_relative_to_its_teacher(batches: ImageBatches, layers: np.ndarray) -> None:
    factor, cut = 1.2, 3
    found = Dynamics(KnownSurrogate(factor, [cut]), batches, OPTIONS).measure("k=2", BOUNDARIES, Known())
    excess = since(np.full(L, factor), 0) - 1  # of the surrogate's tokens over the teacher's, as a share of these
    for measure in ("relative", "relative_cls", "relative_patches"):
        expected = np.tile(excess, (IMAGES, 1))
        assert found[f"hypothesis/surrogate/{measure}"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    eps = excess * np.linalg.norm(layers.reshape(IMAGES, L + 1, -1), axis=-1)
    assert found["hypothesis/surrogate/eps"] == pytest.approx(eps, rel=1e-9, abs=1e-12)
    # class tokens keep to the axis: the layer at the start of a phase falls behind as the teacher's grows
    held = 1 - 1 / np.array([*since(GROWTH, 0, cut), *since(GROWTH, cut)[1:]])
    assert found["hypothesis/hold_phase_start/relative_cls"] == pytest.approx(
        np.tile(held, (IMAGES, 1)), rel=1e-9, abs=1e-12
    )
    # its own phases count, and its own steps
    assert found["boundaries"].tolist() == [cut]
    assert {key.split("/")[1] for key in found if key.startswith("operators/")} == {"0-3", "3-5"}
    for last in (cut, L):
        singular = np.full((2, 3), factor * GROWTH[last - 1])
        assert found[f"jacobian/{last}/singular"] == pytest.approx(singular, rel=1e-6)
    growth = since(factor * GROWTH, 1)
    offset = np.tile(np.arctan(SIZE / growth), (PERTURBED, 1))
    assert found[f"constant_offset/random/1/{SIZE}/cls"] == pytest.approx(offset, rel=1e-6)


def test_only_an_untrained_network_is_cut_by_its_own_distance() -> None:
    place = np.array([0, 0, 1, 1, 1, 1])  # of layers 1..6: the best cut comes after layer 2
    arrays = {
        "boundaries": np.array([4]),
        "distance": np.abs(place[:, None] - place).astype(float),
        "curves/speed/cls": np.radians([[1.0, 1.0, 5.0, 1.0, 1.0, 1.0]] * 4),
    }
    networks = {"teacher": arrays, "untrained": arrays}
    for given, jumps in ((False, [-1.0, 4.0]), (True, [-1.0, -1.0])):  # degrees
        (row,) = evaluate_findings(networks, given=given)
        assert [row["values"][name]["mean"] for name in networks] == pytest.approx(jumps), given
        table = jumps_table(networks, given=given)
        assert table["boundaries"].tolist() == (["4", "4"] if given else ["4", "2"])
        assert table["jump (degrees)"].tolist() == [f"{jump:.2f} ± 0.00" for jump in jumps]
