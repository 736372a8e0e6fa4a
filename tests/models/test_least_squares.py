"""Closed-form start of tied blocks, against known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raptor.models.block import BlockConfig
from raptor.models.initialization import init_from_teacher
from raptor.models.least_squares import MapFit, fit_output_maps, teacher_layers
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase

CONFIG = BlockConfig(width=16, num_heads=2, mlp="gelu", layer_scale=None, depth_scaling=False, eps=1e-6)


def test_a_map_is_fitted_as_numpy_fits_it() -> None:
    x, y, weight = torch.randn(60, 4), torch.randn(60, 3), torch.rand(60)
    linear = nn.Linear(4, 3)
    fit = MapFit(linear)
    for rows in (slice(0, 20), slice(20, 60)):  # by parts
        fit.update(x[rows], y[rows], weight[rows])
    with torch.no_grad():
        fit.solve(penalty=1e-12)
    root = weight.sqrt().numpy()[:, None]
    inputs = np.concatenate([x.numpy(), np.ones((60, 1), np.float32)], axis=1)
    expected = np.linalg.lstsq(inputs * root, y.numpy() * root, rcond=None)[0]
    np.testing.assert_allclose(linear.weight.detach().numpy(), expected[:-1].T, atol=1e-4)
    np.testing.assert_allclose(linear.bias.detach().numpy(), expected[-1], atol=1e-4)


def test_a_large_penalty_changes_nothing_but_the_offset() -> None:
    linear = nn.Linear(4, 3)
    before = linear.weight.detach().clone()
    fit = MapFit(linear)
    fit.update(torch.randn(60, 4), torch.randn(60, 3) + 5, torch.ones(60))
    with torch.no_grad():
        fit.solve(penalty=1e9)
    torch.testing.assert_close(linear.weight.detach(), before, atol=1e-6, rtol=0)
    assert bool((linear.bias.detach() > 3).all())


def test_middles_are_the_tokens_between_attention_and_mlp(teacher: Teacher) -> None:
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        layers, middles = teacher_layers(teacher, images)
        block = teacher.blocks[1]
        torch.testing.assert_close(middles[2], layers[1] + block.attn(block.norm1(layers[1])))
    assert (len(layers), len(middles)) == (5, 5)
    assert not any(b.norm2._forward_pre_hooks for b in teacher.blocks)


@pytest.mark.parametrize("rounds", [1, 2])
def test_maps_that_were_lost_are_found_again(teacher: Teacher, rounds: int) -> None:
    """Of one layer, the teacher's own maps leave no error, whatever the fit starts from."""
    blocks = PhaseBlocks(CONFIG, [Phase(1, 2)], seed=0)
    init_from_teacher(blocks, teacher, "middle")
    for linear in (blocks[0].block.attn.proj, blocks[0].block.mlp.fc2):
        linear.weight.data.normal_(std=0.01)
        linear.bias.data.zero_()
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fit_output_maps(blocks, teacher, lambda: images.split(16), rounds)
    with torch.no_grad():
        layers, _ = teacher_layers(teacher, images)
        (pred,) = blocks[0].steps(layers[1])
    error = (pred - layers[2]).square().mean() / (layers[2] - layers[1]).square().mean()
    assert float(error) < 0.02


def test_tied_blocks_start_nearer_to_the_teacher_than_its_middle_block(teacher: Teacher) -> None:
    blocks = PhaseBlocks(CONFIG, [Phase(0, 4)], seed=0)
    init_from_teacher(blocks, teacher, "middle")
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def errors() -> list[float]:
        with torch.no_grad():
            layers, _ = teacher_layers(teacher, fresh)
            preds = list(blocks[0].steps(layers[0]))
        return [float((p - x).square().mean()) for p, x in zip(preds, layers[1:], strict=True)]

    before = errors()
    fit_output_maps(blocks, teacher, lambda: images.split(16))
    assert sum(errors()) < 0.5 * sum(before)
