"""Losses over maps: what is computed in parts, or at some pixels alone, against the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from raptor.tasks.probes import dense_losses as dense
from raptor.tasks.probes.dense_losses import bilinear_at, lattice, pixel_cross_entropy, row_losses

SIZE = (13, 18)


@pytest.mark.parametrize("stride", [1, 4])
def test_maps_at_some_pixels_are_those_of_interpolation(stride: int) -> None:
    grid = torch.randn(2, 3, 5, 7)
    whole = F.interpolate(grid.movedim(-1, 1), size=SIZE, mode="bilinear").movedim(1, -1)
    for step in range(stride**2):
        rows, columns = lattice(SIZE, stride, step)
        torch.testing.assert_close(bilinear_at(grid, SIZE, (rows, columns)), whole[:, rows][:, :, columns])


def test_every_pixel_has_its_turn_once() -> None:
    turns = torch.zeros(SIZE)
    for step in range(5, 5 + 9):
        turns[lattice(SIZE, 3, step)] += 1
    assert bool((turns == 1).all())


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_losses_in_parts_have_the_gradient_of_the_plain_way(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "MAP_VALUES", 10 * at_once)
    rows, labels, weights = torch.randn(5, 4, 3, requires_grad=True), torch.randint(0, 3, (5, 4)), torch.rand(5)
    labels[2, 1] = 9  # does not count

    def losses(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return pixel_cross_entropy(x.log_softmax(-1), labels[numbers], ignored=9).sum(1)

    plain = torch.stack(
        [F.cross_entropy(x, y, ignore_index=9, reduction="sum") for x, y in zip(rows, labels, strict=True)]
    )
    (expected,) = torch.autograd.grad(plain @ weights, rows)
    found = row_losses(losses, rows, 10)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(torch.autograd.grad(found @ weights, rows)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(row_losses(losses, rows, 10), plain)
    assert row_losses(losses, rows[:0], 10).shape == (0,)
