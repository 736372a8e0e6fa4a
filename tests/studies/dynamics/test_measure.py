"""Dynamics of a whole network: equal to a plain computation in memory, whatever the batches."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raptor.analysis.perturbation import constant_offset, follow
from raptor.data.digits import Digits
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.load import load
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.models.tokens import TokenLayout
from raptor.partition.phases import phases_of
from raptor.studies.dynamics.batches import ImageBatches
from raptor.studies.dynamics.measure import Dynamics, Pass, layers_of
from raptor.studies.dynamics.operators import PhaseOperators
from raptor.studies.dynamics.options import JacobianOptions, MeasureOptions, OperatorOptions, PerturbationOptions
from tests.conftest import tiny_spec

IMAGES = 30
SMALL = MeasureOptions(
    shown=5, perturbation=PerturbationOptions(images=3, sizes=[0.1]), jacobian=JacobianOptions(images=1, values=2)
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """The digits ViT."""
    return freeze(load("package:digits_vit"))


def batches(teacher: Teacher, batch_size: int, dtype: torch.dtype = torch.float32) -> ImageBatches:
    data = Digits()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    return ImageBatches(data, "val", IMAGES, batch_size, torch.device("cpu"), dtype)


@pytest.fixture(scope="module")
def found(teacher: Teacher) -> dict[str, np.ndarray]:
    """All measures, streamed."""
    return Dynamics(teacher, batches(teacher, 7), SMALL).measure("teacher", None)


@pytest.fixture(scope="module")
def in_memory(teacher: Teacher) -> torch.Tensor:
    """All layers of all images at once, in float64: ``(B, L+1, N, D)``."""
    (_, images, _) = next(iter(batches(teacher, IMAGES).batches(range(IMAGES))))
    with torch.no_grad():
        return torch.stack(layers_of(teacher, images), dim=1).double()


def test_streamed_curves_are_those_in_memory(
    found: dict[str, np.ndarray], in_memory: torch.Tensor, teacher: Teacher
) -> None:
    patches = F.normalize(in_memory[:, :, teacher.layout.slice("patches")], dim=-1)
    gamma = (patches * patches[:, -1:]).sum(-1).mean(-1)
    assert found["curves/convergence/patches"] == pytest.approx(gamma.numpy(), abs=1e-6)
    speed = (patches[:, 1:] * patches[:, :-1]).sum(-1).clamp(-1, 1).arccos().mean(-1)
    assert found["curves/speed/patches"] == pytest.approx(speed.numpy(), abs=1e-6)
    assert found["curves/coherence/patches"] == pytest.approx(patches.mean(2).norm(dim=-1).numpy(), abs=1e-6)
    values = torch.linalg.svdvals(patches[:, 1:] - patches[:, :-1])
    p = values / values.sum(-1, keepdim=True)
    assert found["curves/effective_rank/patches"] == pytest.approx((-p * p.log()).sum(-1).exp().numpy(), rel=1e-5)
    ends = torch.einsum("ilpd,jpd->lijp", patches, patches[:, -1])
    others = ends.mean(-1).masked_fill(torch.eye(IMAGES, dtype=torch.bool), 0).sum((1, 2)) / (IMAGES * (IMAGES - 1))
    assert found["other_end/patches"] == pytest.approx(others.numpy(), abs=1e-6)
    every = (patches[:, 5] - patches[:, 4]).flatten(0, 1)
    stable = torch.linalg.svdvals(every).square()
    assert found["pooled/stable_rank/patches"][4] == pytest.approx((stable.sum() / stable.max()).item(), rel=1e-5)


def test_streamed_basins_are_those_in_memory(
    found: dict[str, np.ndarray], in_memory: torch.Tensor, teacher: Teacher
) -> None:
    labels = torch.from_numpy(found["labels"])
    cls = F.normalize(in_memory[:, :, 0], dim=-1)
    half = IMAGES // 2
    seen = sorted(set(labels[:half].tolist()))
    means = torch.stack([F.normalize(cls[:half][labels[:half] == c].sum(0), dim=-1) for c in seen])
    evaluated = [i for i in range(half, IMAGES) if labels[i] in seen]
    nearest = torch.einsum("bld,cd->blc", cls[evaluated], means[:, -1]).argmax(-1)
    right = torch.tensor(seen)[nearest] == labels[evaluated][:, None]
    assert np.array_equal(found["basins/final/cls"], right.double().numpy())
    largest = torch.bincount(labels[evaluated]).max() / len(evaluated)
    assert found["basins/chance"] == pytest.approx(max(1 / len(seen), float(largest)))


def test_operator_is_least_squares_in_memory(teacher: Teacher, in_memory: torch.Tensor) -> None:
    options = MeasureOptions(operators=OperatorOptions(rank=teacher.width, tokens=["patches"]))
    sums = Pass(teacher, IMAGES, 0, options)
    sums.update(range(IMAGES), list(in_memory.unbind(1)), None)
    arrays = PhaseOperators(teacher, sums.fitted, sums.evaluated, [6], options.operators).one_step()
    u = F.normalize(in_memory[:, :, teacher.layout.slice("patches")], dim=-1)

    def samples(images: slice) -> tuple[torch.Tensor, torch.Tensor]:
        x, following = (u[images, layers].flatten(0, 2) for layers in (slice(6, 12), slice(7, 13)))
        return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1), following

    x, following = samples(slice(0, IMAGES // 2))
    A = torch.linalg.lstsq(x, following).solution
    x, following = samples(slice(IMAGES // 2, IMAGES))
    error = (x @ A - following).square().sum(-1).mean().item()
    assert float(arrays["operators/6-12/patches/linear_error"]) == pytest.approx(error, rel=1e-5)
    change = (x[:, :-1] - following).square().sum(-1).mean().item()
    assert float(arrays["operators/6-12/patches/identity_error"]) == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize(
    ("dtype", "rel", "conditioned"),  # conditioning magnifies the last digit of operators and Jacobians
    [(torch.float32, 1e-5, 2e-3), (torch.float64, 1e-9, 1e-6)],
)
def test_batch_size_does_not_matter(
    found: dict[str, np.ndarray], dtype: torch.dtype, rel: float, conditioned: float
) -> None:
    teacher = freeze(load("package:digits_vit")).to(dtype)

    def measured(size: int) -> dict[str, np.ndarray]:
        return Dynamics(teacher, batches(teacher, size, dtype), SMALL).measure("teacher", None)

    first, other = found if dtype == torch.float32 else measured(1), measured(IMAGES)
    assert other.keys() == first.keys()
    for key, values in first.items():
        if key.startswith(("operators/", "jacobian/")):
            theirs, ours = np.sort(np.abs(values).ravel()), np.sort(np.abs(other[key]).ravel())
            assert ours == pytest.approx(theirs, rel=conditioned, abs=1e-6), key
        elif key.startswith(("multistep/", "rollout/", "agreement/")):  # powers of operators of few images
            assert other[key] == pytest.approx(values, rel=10 * conditioned, abs=10 * conditioned), key
        else:
            assert other[key] == pytest.approx(values, rel=rel, abs=rel / 10), key


def test_same_sums_whatever_the_batches(teacher: Teacher, in_memory: torch.Tensor) -> None:
    """With equal layers, the streamed sums agree far beyond float32."""
    labels = torch.arange(IMAGES) % 4
    results = []
    for cuts in ([0, IMAGES], [0, 1, 11, 17, IMAGES]):
        sums = Pass(teacher, IMAGES, 4, SMALL)
        for a, b in itertools.pairwise(cuts):
            sums.update(range(a, b), list(in_memory[a:b].unbind(1)), labels[a:b])
        operators = PhaseOperators(teacher, sums.fitted, sums.evaluated, [4, 8], SMALL.operators)
        results.append(sums.arrays() | operators.one_step())
    for key, values in results[0].items():
        assert np.abs(results[1][key]) == pytest.approx(np.abs(values), rel=1e-6, abs=1e-9), key


def test_perturbations_toward_another_class_differ_from_the_own_one(found: dict[str, np.ndarray]) -> None:
    # all class tokens are equal at layer 0, so that there is no direction from one class to another
    assert (found["perturbed/class/0/0.1/cls"][:, 0] == 0).all()
    assert found["perturbed/class/6/0.1/cls"][:, 0] == pytest.approx(np.full(3, np.arctan(0.1)), rel=1e-5)


def test_without_classes_there_are_neither_basins_nor_perturbations_toward_them(teacher: Teacher) -> None:
    data = Digits()
    data.target = "labels"  # maps, say
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    images = ImageBatches(data, "val", 8, 4, torch.device("cpu"))
    options = replace(SMALL, operators=OperatorOptions(tokens=[]), jacobian=JacobianOptions(images=0))
    arrays = Dynamics(teacher, images, options).measure("teacher", [6])
    assert not [key for key in arrays if key.startswith(("basins/", "perturbed/class", "operators/", "jacobian/"))]
    assert "perturbed/random/3/0.1/cls" in arrays


def test_a_constant_offset_loses_angle_as_the_token_grows() -> None:
    layout = TokenLayout(1, 0, 1)
    u, side = torch.eye(4)[0].expand(2, 2, 4), torch.eye(4)[1].expand(2, 2, 4)
    layers = [(1.0 + k) * u for k in range(4)]
    angles = follow(constant_offset(layers, 0.1 * side), layers, 0, layers[0] + 0.1 * side, layout)["cls"]
    assert angles[0].tolist() == pytest.approx([np.arctan(0.1 / (1 + k)) for k in range(4)], abs=1e-6)


def test_perturbations_begin_with_the_asked_angle(found: dict[str, np.ndarray]) -> None:
    angles = {key: values for key, values in found.items() if key.startswith("perturbed/random/")}
    assert {key.split("/")[2] for key in angles} == {"0", "3", "6", "9"}
    for values in angles.values():
        assert values[:, 0] == pytest.approx(np.full(3, np.arctan(0.1)), rel=1e-5)


def test_error_of_a_surrogate(teacher: Teacher) -> None:
    torch.manual_seed(0)
    config = BlockConfig(teacher.width, 3, layer_scale=0.1)
    surrogate = Surrogate.of_teacher(teacher, PhaseBlocks(config, phases_of([5], 12))).eval()
    arrays = Dynamics(surrogate, batches(teacher, 16), SMALL).measure("k=2", [5], teacher)
    relative, held = (arrays[f"hypothesis/{which}/relative"] for which in ("surrogate", "hold_phase_start"))
    assert relative.shape == (IMAGES, 13)
    assert (relative[:, 0] == 0).all()  # both begin with the teacher's embedding
    assert (relative[:, 1:] > 0).all()
    assert (held[:, 6] < held[:, 5]).all()  # the second phase begins with the teacher's own layer
    assert arrays["boundaries"].tolist() == [5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MeasureOptions(k=13), "k=13"),
        (MeasureOptions(boundaries=[8, 4]), "out of order"),
        (MeasureOptions(perturbation=PerturbationOptions(layers=[12])), "perturbation.layers"),
    ],
)
def test_options_that_do_not_fit(teacher: Teacher, options: MeasureOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options.for_network(teacher)


def test_token_types_that_a_network_has_not_are_left_out() -> None:
    without = Teacher(tiny_spec(class_token=False, global_pool="avg", reg_tokens=0))
    measured = MeasureOptions(k=2).for_network(without)
    assert (measured.tokens, measured.operators.tokens, measured.k) == (["patches"], ["patches"], 2)
    with pytest.raises(ConfigError, match=r"^tokens=\[registers\]"):
        MeasureOptions(k=2, tokens=["registers"]).for_network(without)


def test_images_that_cannot_be_had(teacher: Teacher) -> None:
    data = Digits()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    with pytest.raises(ConfigError, match="split=test: expected train or val"):
        ImageBatches(data, "test", 10, 4, torch.device("cpu"))
    with pytest.raises(ConfigError, match="images=2"):
        ImageBatches(data, "val", 2, 4, torch.device("cpu"))
    assert len(ImageBatches(data, "val", None, 4, torch.device("cpu"))) == len(data.val_images)


def test_batches_are_a_fixed_shuffle(teacher: Teacher, tmp_path: Path) -> None:
    one, other = batches(teacher, 4), batches(teacher, 9)
    ours = torch.cat([images for _, images, _ in one.batches(range(IMAGES))])
    theirs = torch.cat([images for _, images, _ in other.batches(range(IMAGES))])
    assert torch.equal(ours, theirs)
    (positions, some, labels), *_ = other.batches([3, 20])
    assert positions == [3, 20]
    assert torch.equal(some, ours[[3, 20]])
    assert labels is not None
    assert len(labels) == 2
