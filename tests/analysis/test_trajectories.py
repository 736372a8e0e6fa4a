"""Curves over depth against trajectories whose curves are known."""

import math

import pytest
import torch

from raptor.analysis.basins import ClassDirections, evaluate_basins, pooled_directions
from raptor.analysis.hypothesis import hold_phase_start, recurrence_error
from raptor.analysis.moments import Moments, OtherEnd
from raptor.analysis.rank import effective_rank, spectrum, stable_rank
from raptor.analysis.sphere import angle, directions, great_circle, tangent
from raptor.analysis.trajectories import coherence, image_curves
from raptor.models.tokens import TokenLayout

LAYOUT = TokenLayout(1, 2, 3)
D = 8


def tokens(fill: torch.Tensor, images: int = 2) -> torch.Tensor:
    return fill.expand(images, LAYOUT.num_tokens, len(fill)).clone()


def axis(i: int, size: int = D) -> torch.Tensor:
    return torch.eye(size, dtype=torch.float64)[i]


def great_circle_layers(step: float, layers: int) -> list[torch.Tensor]:
    """Tokens that turn by ``step`` radians a layer, while their norm grows."""
    return [tokens((1 + k) * (math.cos(step * k) * axis(0) + math.sin(step * k) * axis(1))) for k in range(layers + 1)]


def random_layers(images: int, layers: int, seed: int = 0, width: int = D) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, LAYOUT.num_tokens, width, generator=generator) for _ in range(layers + 1)]


def test_great_circle() -> None:
    curves = image_curves(great_circle_layers(0.2, 5), LAYOUT)
    for kind in LAYOUT.types:
        assert curves["speed"][kind] == pytest.approx(torch.full((2, 5), 0.2), abs=1e-12)
        gamma = torch.tensor([math.cos(0.2 * (5 - k)) for k in range(6)])
        assert curves["convergence"][kind] == pytest.approx(gamma.expand(2, 6), abs=1e-6)
        assert curves["norm"][kind] == pytest.approx(torch.arange(1.0, 7.0).expand(2, 6), abs=1e-12)


def test_straight_line_through_the_origin_does_not_turn() -> None:
    line = [tokens((1 + k) * (axis(0) + 2 * axis(3))) for k in range(4)]
    curves = image_curves(line, LAYOUT, ranks=False)
    assert curves["speed"]["patches"].abs().max() < 1e-12
    assert curves["convergence"]["cls"] == pytest.approx(torch.ones(2, 4), abs=1e-12)


def test_straight_line_past_the_origin_turns_by_the_arctangent() -> None:
    line = [tokens(axis(0) + k * axis(1)) for k in range(4)]
    speed = image_curves(line, LAYOUT, ranks=False)["speed"]["cls"][0]
    assert speed == pytest.approx(torch.tensor([math.atan(k + 1) - math.atan(k) for k in range(3)]), abs=1e-9)


def test_small_angles_keep_their_digits() -> None:
    assert angle(axis(0), directions(axis(0) + 1e-9 * axis(1))).item() == pytest.approx(1e-9, rel=1e-6)
    assert angle(axis(0), -axis(0)).item() == pytest.approx(math.pi, abs=1e-12)


def test_position_on_a_great_circle() -> None:
    u = directions(torch.cos(torch.tensor(0.7)) * axis(0) + torch.sin(torch.tensor(0.7)) * axis(1))
    along, off = great_circle(u, axis(0), directions(axis(0) + axis(1)))
    assert (along.item(), off.item()) == pytest.approx((0.7, 0.0), abs=1e-7)
    along, off = great_circle(axis(2), axis(0), axis(1))
    assert off.item() == pytest.approx(math.pi / 2, abs=1e-12)
    assert tangent(axis(0) * 5, axis(0)).norm() == 0


def test_coherence_of_identical_antipodal_and_orthogonal_patches() -> None:
    assert coherence(axis(0).expand(6, D)).item() == pytest.approx(1.0)
    assert coherence(torch.stack([axis(0), -axis(0)])).item() == pytest.approx(0.0, abs=1e-15)
    assert coherence(torch.eye(D, dtype=torch.float64)).item() == pytest.approx(1 / math.sqrt(D))


@pytest.mark.parametrize("r", [1, 3, 5])
def test_rank_of_updates(r: int) -> None:
    generator = torch.Generator().manual_seed(r)
    left = torch.linalg.qr(torch.randn(7, r, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(D, r, generator=generator, dtype=torch.float64)).Q
    powers = spectrum(left @ right.T)
    assert stable_rank(powers).item() == pytest.approx(r, abs=1e-9)
    assert effective_rank(powers).item() == pytest.approx(r, abs=1e-5)
    weighted = spectrum(left * torch.arange(1.0, r + 1, dtype=torch.float64) @ right.T)
    squares = torch.arange(1.0, r + 1) ** 2
    assert stable_rank(weighted).item() == pytest.approx((squares.sum() / squares.max()).item(), abs=1e-9)
    p = squares.sqrt() / squares.sqrt().sum()
    assert effective_rank(weighted).item() == pytest.approx((-p * p.log()).sum().exp().item(), abs=1e-5)


def test_rank_of_no_update_is_zero() -> None:
    powers = spectrum(torch.zeros(4, D))
    assert (stable_rank(powers).item(), effective_rank(powers).item()) == (0.0, 0.0)


def test_pooled_rank_is_that_of_the_stacked_updates() -> None:
    layers = [directions(x) for x in random_layers(5, 2)]
    moments = Moments(LAYOUT, ["patches"])
    moments.update(layers)
    updates = LAYOUT.select(layers[2] - layers[1], "patches").flatten(0, 1)
    expected = torch.linalg.svdvals(updates).square().flip(0)
    assert moments.step("patches", 1).update_powers == pytest.approx(expected, abs=1e-10)


def test_batches_do_not_matter() -> None:
    layers = random_layers(7, 3)
    whole = image_curves(layers, LAYOUT)
    parts = [image_curves([x[i:j] for x in layers], LAYOUT) for i, j in ((0, 1), (1, 5), (5, 7))]
    for measure, by_kind in whole.items():
        for kind, values in by_kind.items():
            streamed = torch.cat([part[measure][kind] for part in parts])
            assert streamed == pytest.approx(values, abs=1e-12), (measure, kind)

    one, several = Moments(LAYOUT, LAYOUT.types), Moments(LAYOUT, LAYOUT.types)
    end, ends = OtherEnd(LAYOUT), OtherEnd(LAYOUT)
    one.update(layers)
    end.update([directions(x) for x in layers])
    for i, j in ((0, 4), (4, 4), (4, 7)):
        several.update([x[i:j] for x in layers])
    for i, j in ((0, 2), (2, 7)):
        ends.update([directions(x[i:j]) for x in layers])
    for kind in LAYOUT.types:
        for ours, theirs in zip(one.cross[kind], several.cross[kind], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-10)
        assert end.compute()[kind] == pytest.approx(ends.compute()[kind], abs=1e-12)


def test_other_end_is_the_mean_over_all_pairs() -> None:
    layers = [directions(x) for x in random_layers(4, 2)]
    baseline = OtherEnd(LAYOUT)
    baseline.update(layers)
    for layer in range(3):
        pairs = [
            (layers[layer][i] * layers[2][j]).sum(-1)[LAYOUT.slice("patches")].mean()
            for i in range(4)
            for j in range(4)
            if i != j
        ]
        assert baseline.compute()["patches"][layer].item() == pytest.approx(torch.stack(pairs).mean().item())
    single = OtherEnd(LAYOUT)
    single.update([x[:1] for x in layers])
    assert single.compute()["cls"].isnan().all()


def test_basins_of_separate_classes_and_of_noise() -> None:
    labels = torch.tensor([0, 1, 2] * 40)
    noise = random_layers(120, 2, width=64)
    # at the last layer a strong class direction, at the first none
    pure = [x + k * 40 * torch.eye(64)[labels][:, None] for k, x in enumerate(noise)]
    fit, evaluated = slice(0, 60), slice(60, 120)
    means = ClassDirections(5)
    means.update(pooled_directions([x[fit] for x in pure], LAYOUT), labels[fit])
    assert means.seen.tolist() == [True, True, True, False, False]
    assert means.chance(labels[evaluated]) == pytest.approx(1 / 3)
    assert means.chance(torch.tensor([0, 0, 0, 1])) == 0.75  # always the same answer
    points = pooled_directions([x[evaluated] for x in pure], LAYOUT)["patches"]
    found = evaluate_basins(points, means.compute()["patches"], labels[evaluated], means.seen)
    assert found["own"][:, 2].mean() == found["final"][:, 2].mean() == 1
    assert 0.15 < found["own"][:, 0].mean() < 0.55  # chance is 1/3, n = 60
    assert found["class_mean"][:, 2].mean() > 0.9
    assert found["class_mean"][:, 0].mean().abs() < 0.1


def test_classes_that_are_equally_near_count_as_chance_among_them() -> None:
    labels, seen = torch.tensor([0, 1, 2, 2]), torch.tensor([True, True, True, False])
    point = directions(torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    means = point.repeat(4, 1, 1) * (1 + torch.tensor([0.0, 1e-15, -1e-15, 0.0], dtype=torch.float64))[:, None, None]
    means[3] = 0.0
    found = evaluate_basins(point.repeat(4, 1, 1), means, labels, seen)
    assert found["own"].flatten().tolist() == pytest.approx([1 / 3] * 4)
    means[2] = -point  # two are left
    assert evaluate_basins(point.repeat(4, 1, 1), means, labels, seen)["own"].flatten().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_recurrence_error() -> None:
    layers = random_layers(3, 4)
    off = [1.1 * x for x in layers]
    found = recurrence_error(layers, off, LAYOUT)
    assert found["relative"] == pytest.approx(torch.full((3, 5), 0.1), abs=1e-6)
    assert found["eps"][0, 2].item() == pytest.approx(0.1 * layers[2][0].norm().item(), rel=1e-6)
    assert found["angle_cls"].abs().max() < 1e-6
    starts = [next(j for j, y in enumerate(layers) if y is x) for x in hold_phase_start(layers, [2])]
    assert starts == [0, 0, 0, 2, 2]
