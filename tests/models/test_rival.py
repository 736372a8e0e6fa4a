"""Rivals keep the protocol of a backbone, and equal the teacher where they keep all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import raptor
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.costs import block_flops
from raptor.models.export import export_program
from raptor.models.initialization import init_from_teacher
from raptor.models.io import save
from raptor.models.rival import Rival, Stretch, kept_blocks, new_blocks
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.models.vit import ViTSpec
from raptor.partition.phases import Phase, phases_of

PHASES = phases_of([2], 4)


def made(teacher: Teacher, config: BlockConfig) -> dict[str, Rival]:
    """One rival of each operation."""
    untied = [Stretch(0, 2, "block", (), True), Stretch(2, 4, "block", (), True)]
    linear = [Stretch(0, 1, "teacher", (1,)), Stretch(1, 3, "linear"), Stretch(3, 4, "teacher", (4,))]
    torch.manual_seed(1)
    return {
        "untied": Rival.of_teacher(teacher, "untied", PHASES, untied, new_blocks(untied, config, seed=0)),
        "truncated": Rival.of_teacher(teacher, "truncated", PHASES, kept_blocks([1, 2], 4)),
        "healed": Rival.of_teacher(teacher, "healed", PHASES, kept_blocks([1, 2], 4, "last")),
        "pruned": Rival.of_teacher(teacher, "pruned", PHASES, kept_blocks([2, 4], 4, "all"), matched=range(1, 5)),
        "linear": Rival.of_teacher(teacher, "linear", PHASES, linear, {1: nn.Linear(16, 16)}),
    }


@pytest.mark.parametrize("healed", ["none", "last", "all"])
def test_keeping_all_blocks_is_the_teacher(teacher: Teacher, healed: str) -> None:
    rival = Rival.of_teacher(teacher, "all", PHASES, kept_blocks([1, 2, 3, 4], 4, healed))
    images = torch.randn(3, 1, 8, 8)
    x = teacher.embed(images)
    assert torch.equal(rival.rollout(x), teacher.rollout(x))
    assert torch.equal(rival.classify(images), teacher.classify(images))
    inputs = [x, *teacher.steps(x)][:4]
    assert torch.equal(torch.stack(rival.teacher_forced(inputs), 1), teacher.rollout(x))


def test_a_block_for_each_layer_started_from_the_teacher_is_the_teacher(teacher: Teacher) -> None:
    config = BlockConfig(16, 2, mlp="gelu", layer_scale=None, depth_scaling=False, eps=1e-6)
    stretches = [Stretch(layer - 1, layer, "block", (), True) for layer in range(1, 5)]
    blocks = PhaseBlocks(config, [Phase(s.start, s.end) for s in stretches], seed=0)
    init_from_teacher(blocks, teacher, "middle")
    rival = Rival.of_teacher(teacher, "per_layer", PHASES, stretches, {i: b.block for i, b in enumerate(blocks)})
    x = teacher.embed(torch.randn(3, 1, 8, 8))
    assert torch.allclose(rival.rollout(x), teacher.rollout(x), atol=1e-4)


def test_layers_between_the_ends_are_interpolated_and_held_after_the_last_block(teacher: Teacher) -> None:
    x = teacher.embed(torch.randn(2, 1, 8, 8))
    oracle = [Stretch(p.start, p.end, "teacher", tuple(range(p.start + 1, p.end + 1))) for p in PHASES]
    layers = [x, *Rival.of_teacher(teacher, "oracle", PHASES, oracle).steps(x)]
    own = [x, *teacher.steps(x)]
    for layer in (0, 2, 4):
        assert torch.equal(layers[layer], own[layer])
    for layer in (1, 3):
        assert torch.allclose(layers[layer], (own[layer - 1] + own[layer + 1]) / 2, atol=1e-5)
    truncated = list(Rival.of_teacher(teacher, "cut", PHASES, kept_blocks([1, 2], 4)).steps(x))
    assert [torch.equal(a, b) for a, b in zip(truncated, own[1:], strict=True)] == [True, True, False, False]
    assert torch.equal(truncated[3], own[2])
    pruned = list(Rival.of_teacher(teacher, "pruned", PHASES, kept_blocks([1, 4], 4)).steps(x))
    assert torch.allclose(pruned[3], teacher.apply_block(own[1], 4))
    assert torch.allclose(pruned[1], torch.lerp(own[1], pruned[3], 1 / 3), atol=1e-6)


def test_each_rival_keeps_the_protocol_and_comes_back_from_its_folder(
    teacher: Teacher, block_config: BlockConfig, tmp_path: Path
) -> None:
    images = torch.randn(2, 1, 8, 8)
    for name, rival in made(teacher, block_config).items():
        again = raptor.load(save(rival.eval(), tmp_path / name))
        assert isinstance(again, Rival)
        assert again.to_config() == rival.to_config()
        assert torch.equal(again(images), rival(images))
        assert torch.equal(again.rollout(again.embed(images)), rival.rollout(rival.embed(images)))
        trained = {key for key, p in rival.named_parameters() if p.requires_grad}
        assert trained == {key for key, p in again.named_parameters() if p.requires_grad}
        assert (not trained) == (name in ("truncated", "linear"))
        (last,) = rival.get_intermediate_layers(images, 1)
        assert isinstance(last, torch.Tensor)
        assert torch.equal(last, rival.layout.select(rival.rollout(rival.embed(images))[:, -1], "patches"))
        assert len(rival.feature_info) == 4
        assert (rival.k, rival.boundaries) == (2, [2])
    assert export_program(made(teacher, block_config)["linear"].eval(), tmp_path / "linear.pt2") < 1e-4


def test_training_leaves_the_teacher_and_its_frozen_blocks_alone(teacher: Teacher) -> None:
    teacher.requires_grad_(False)
    rival = Rival.of_teacher(teacher, "healed", PHASES, kept_blocks([1, 2], 4, "last"))
    rival.train()
    assert not any(part.training for block in rival.blocks for part in block.modules())
    rival(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert {key.split(".")[1] for key, p in rival.named_parameters() if p.grad is not None} == {"1"}
    assert all(p.grad is None for p in teacher.parameters())
    shared = rival.get_submodule("blocks.0.0") is teacher.blocks[0]
    assert shared and rival.get_submodule("blocks.1.0") is not teacher.blocks[1]


def test_flops_are_those_that_torch_counts(teacher: Teacher, block_config: BlockConfig) -> None:
    surrogate = Surrogate.of_teacher(teacher, PhaseBlocks(block_config, PHASES, seed=0))
    models: list[Teacher | Surrogate | Rival] = [teacher, surrogate, *made(teacher, block_config).values()]
    for model in models:
        x = teacher.embed(torch.randn(1, 1, 8, 8))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.run_to(x)
        depth = 4 * 2 * (16 + 16 * 48) if isinstance(model, Surrogate) else 0  # depth scaling, once for each layer
        found = counter.get_total_flops() - depth
        assert block_flops(model) == pytest.approx(found, rel=0.25), type(model)


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        ([Stretch(0, 2, "block"), Stretch(3, 4, "block")], "without gap or overlap"),
        ([Stretch(1, 4, "block")], "from layer 0 on"),
        ([Stretch(0, 4, "magic")], "block or teacher or linear"),
    ],
)
def test_a_schedule_that_leaves_a_layer_out_is_refused(
    teacher: Teacher, stretches: list[Stretch], message: str
) -> None:
    parts = [nn.Identity() for _ in stretches]
    with pytest.raises(ConfigError, match=message):
        Rival(teacher.shell, "wrong", PHASES, stretches, parts, [4])


def test_rotary_teachers_have_rivals_too() -> None:
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 16, "embed_dim": 24, "num_heads": 2, "depth": 3, "num_classes": 3}
    teacher = Teacher(ViTSpec("eva02_tiny_patch14_224", options)).eval()
    rival = Rival.of_teacher(teacher, "all", phases_of([], 3), kept_blocks([1, 2, 3], 3))
    x = teacher.embed(torch.randn(2, *teacher.input_shape))
    assert torch.equal(rival.rollout(x), teacher.rollout(x))
