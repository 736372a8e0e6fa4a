"""Measures of an existence proof, against known answers."""

from __future__ import annotations

import pytest
import torch

from raptor.studies.proof.measures import ColourMap, neighbour_agreement, share_of_gap


def test_neighbours_of_a_rotated_embedding_are_the_same() -> None:
    x = torch.randn(40, 6)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    found = neighbour_agreement(x @ rotation * 3, x, 5)
    assert (found["nearest"], found["overlap"]) == (1.0, 1.0)
    assert found["chance"] == pytest.approx(5 / 39)


def test_neighbours_by_hand() -> None:
    ours = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])  # pairs (0, 1) and (2, 3)
    theirs = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.3], [-1.0, 0.2]])  # nearest: 1, 0, 0, 1
    found = neighbour_agreement(ours, theirs, 1)
    assert (found["nearest"], found["overlap"]) == (0.5, 0.5)
    unrelated = neighbour_agreement(torch.randn(400, 8), torch.randn(400, 8), 20)
    assert unrelated["overlap"] == pytest.approx(unrelated["chance"], abs=0.02)


def test_more_neighbours_than_images_are_all_of_them() -> None:
    assert neighbour_agreement(torch.randn(4, 3), torch.randn(4, 3), 10)["overlap"] == 1.0


def test_colours_are_the_teachers_where_the_patches_are() -> None:
    teacher = torch.randn(2, 9, 5)
    colours = ColourMap(teacher)
    own = colours(teacher)
    assert own.shape == (2, 9, 3)
    assert bool((own.amin((0, 1)) == 0).all()) and bool((own.amax((0, 1)) == 1).all())
    torch.testing.assert_close(ColourMap(-teacher)(-teacher), 1 - own)  # a fixed sign of the axes
    far = colours(teacher + 100)
    assert bool(((far >= 0) & (far <= 1)).all())


def test_share_of_the_gap() -> None:
    assert share_of_gap(0.3, 0.1, 0.5) == pytest.approx(0.5)
    assert share_of_gap(0.1, 0.1, 0.5) == 0.0
    assert share_of_gap(0.05, 0.1, 0.5) == pytest.approx(-0.125)
    assert share_of_gap(0.3, 0.5, 0.5) is None  # the teacher shows nothing
