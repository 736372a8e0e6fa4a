"""Tied blocks that begin as the teacher's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.initialization import init_from_teacher
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase

CONFIG = BlockConfig(width=16, num_heads=2, mlp="gelu", layer_scale=0.3, depth_scaling=False, eps=1e-6)


@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_blocks_of_one_layer_are_the_teachers(teacher: Teacher, layer_scale: float | None) -> None:
    x = torch.randn(2, 7, 16)
    blocks = PhaseBlocks(replace(CONFIG, layer_scale=layer_scale), [Phase(i, i + 1) for i in range(4)], seed=0)
    init_from_teacher(blocks, teacher, "middle")
    for own, theirs in zip(blocks, teacher.blocks, strict=True):
        torch.testing.assert_close(own.block(x, torch.tensor(1)), theirs(x))


def test_middle_and_mean(teacher: Teacher) -> None:
    blocks = PhaseBlocks(CONFIG, [Phase(1, 4)], seed=0)
    before = blocks[0].block.mlp.fc1.weight.clone()
    init_from_teacher(blocks, teacher, "random")
    assert torch.equal(blocks[0].block.mlp.fc1.weight, before)
    init_from_teacher(blocks, teacher, "middle")
    assert torch.equal(blocks[0].block.mlp.fc1.weight, teacher.blocks[2].mlp.fc1.weight)
    init_from_teacher(blocks, teacher, "mean")
    mean = sum(teacher.blocks[i].mlp.fc1.weight for i in (1, 2, 3)) / 3
    torch.testing.assert_close(blocks[0].block.mlp.fc1.weight, mean)
    assert bool((blocks[0].block.gamma1 == 1).all())  # a teacher without LayerScale
    teacher.blocks[2].mlp.fc1.weight.data.zero_()
    assert bool(blocks[0].block.mlp.fc1.weight.any())  # a copy


def test_other_architectures_are_refused(teacher: Teacher) -> None:
    with pytest.raises(ConfigError, match=r"mlp\.fc1\.weight is \(64, 16\) in the teacher.*mlp=gelu"):
        init_from_teacher(PhaseBlocks(replace(CONFIG, mlp="swiglu"), [Phase(0, 2)]), teacher, "mean")
    with pytest.raises(ConfigError, match=r"surrogate\.init=first: expected random or middle or mean"):
        init_from_teacher(PhaseBlocks(CONFIG, [Phase(0, 2)]), teacher, "first")
