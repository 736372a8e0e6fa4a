import pytest
import torch

from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase, phases_of


def make(teacher: Teacher, config: BlockConfig, boundaries: list[int]) -> Surrogate:
    return Surrogate.of_teacher(teacher, PhaseBlocks(config, phases_of(boundaries, teacher.num_layers), seed=0))


@pytest.mark.parametrize("boundaries", [[], [1], [2], [1, 3], [1, 2, 3]])
def test_every_k_from_one_to_depth(teacher: Teacher, block_config: BlockConfig, boundaries: list[int]) -> None:
    surrogate = make(teacher, block_config, boundaries)
    images = torch.randn(3, 1, 8, 8)
    x = surrogate.embed(images)
    layers = surrogate.rollout(x)
    assert surrogate.k == len(boundaries) + 1
    assert layers.shape == (3, 4, 7, 16)
    # by hand: every layer by the block of its phase, at its own depth index
    for layer in range(1, 5):
        block = next(b for b in surrogate.blocks if b.phase.start < layer <= b.phase.end)
        x = block.block(x, torch.tensor(float(layer)))
        assert torch.allclose(layers[:, layer - 1], x, atol=1e-6)
    assert torch.equal(surrogate(images), teacher.norm(layers[:, -1]))
    assert torch.equal(surrogate.classify(images), teacher.head(layers[:, -1]))


def test_any_range_of_layers_is_a_piece_of_the_rollout(teacher: Teacher, block_config: BlockConfig) -> None:
    surrogate = make(teacher, block_config, [1, 3])
    x = torch.randn(2, 7, 16)
    acts = torch.cat([x[:, None], surrogate.rollout(x)], dim=1)
    for start in range(5):
        for end in range(start, 5):
            part = surrogate.layers(acts[:, start], start, end)
            assert part.shape[1] == end - start
            assert torch.allclose(part, acts[:, start + 1 : end + 1], atol=1e-6)
    with pytest.raises(ConfigError, match=r"layers=2\.\.1: expected a range within 0\.\.4"):
        surrogate.layers(x, 2, 1)


def test_teacher_forcing_is_one_step_from_each_layer(teacher: Teacher, block_config: BlockConfig) -> None:
    surrogate = make(teacher, block_config, [2])
    acts = [torch.randn(2, 7, 16) for _ in range(4)]
    forced = surrogate.teacher_forced(acts)
    for layer in range(4):
        assert torch.allclose(forced[layer], surrogate.layers(acts[layer], layer, layer + 1)[:, 0], atol=1e-6)


def test_gradients_reach_the_blocks_and_only_them(teacher: Teacher, block_config: BlockConfig) -> None:
    surrogate = make(teacher, block_config, [2])
    surrogate(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in surrogate.blocks.parameters())
    assert all(p.grad is None and not p.requires_grad for p in surrogate.shell.parameters())


def test_weights_depend_on_seed_and_phase_alone(block_config: BlockConfig) -> None:
    one = PhaseBlocks(block_config, [Phase(0, 2)], seed=3)
    torch.manual_seed(99)
    two = PhaseBlocks(block_config, [Phase(2, 4), Phase(0, 2)], seed=3)
    other = PhaseBlocks(block_config, [Phase(0, 2)], seed=4)
    key = "block.attn.qkv.weight"
    assert torch.equal(one.of(Phase(0, 2)).state_dict()[key], two.of(Phase(0, 2)).state_dict()[key])
    assert not torch.equal(two.of(Phase(2, 4)).state_dict()[key], two.of(Phase(0, 2)).state_dict()[key])
    assert not torch.equal(one.of(Phase(0, 2)).state_dict()[key], other.of(Phase(0, 2)).state_dict()[key])


def test_blocks_that_do_not_cover_the_teacher_are_refused(teacher: Teacher, block_config: BlockConfig) -> None:
    with pytest.raises(ConfigError, match="without gap or overlap"):
        Surrogate.of_teacher(teacher, PhaseBlocks(block_config, [Phase(0, 1), Phase(2, 4)], seed=0))
    with pytest.raises(ConfigError, match="4 layers"):
        Surrogate.of_teacher(teacher, PhaseBlocks(block_config, [Phase(0, 3)], seed=0))
    with pytest.raises(ConfigError, match="each once"):
        PhaseBlocks(block_config, [Phase(0, 3), Phase(0, 3)], seed=0)
