"""The check of shapes that holds in all tests: it is on, and it finds what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.teacher import Teacher
from tests.shapes import ShapeError, checked


def test_models_are_checked_in_all_tests(teacher: Teacher, block_config: BlockConfig) -> None:
    x_BND = teacher.embed(torch.rand(2, 1, 8, 8))
    assert list(teacher.steps(x_BND))[-1].shape == x_BND.shape
    with pytest.raises(ShapeError, match=r"Teacher.steps: x_BND has the shape \(7, 16\)"):
        list(teacher.steps(x_BND[0]))
    block = RecurrentBlock(block_config)
    with pytest.raises(ShapeError, match=r"x_BND has the shape \(2, 16\)"):
        block(x_BND[:, 0], torch.tensor(1))


def test_a_letter_stands_for_one_length_in_a_call() -> None:
    @checked
    def dot(a_BD: Tensor, b_DB: Tensor, name: str = "") -> Tensor:
        return a_BD @ b_DB

    assert dot(torch.ones(2, 3), torch.ones(3, 2), name="x").shape == (2, 2)
    assert dot(torch.ones(4, 3), b_DB=torch.ones(3, 4)).shape == (4, 4)  # another call, another length
    with pytest.raises(ShapeError, match=r"dot: b_DB has the shape \(3, 4\)"):
        dot(torch.ones(2, 3), torch.ones(3, 4))
