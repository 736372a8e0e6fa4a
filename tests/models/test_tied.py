from pathlib import Path

import pytest
import torch

import raptor
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.io import save
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.models.tied import PartitionEnsemble, TiedDepth
from raptor.partition.phases import Phase, label_layers, phases_of


@pytest.fixture
def pair(teacher: Teacher, block_config: BlockConfig) -> tuple[TiedDepth, Surrogate]:
    """The same weights as a piece with contiguous labels and as a surrogate."""
    surrogate = Surrogate.of_teacher(teacher, PhaseBlocks(block_config, phases_of([1], 4), seed=3))
    piece = TiedDepth(block_config, label_layers([1], 4), "k2-maxcut")
    for ours, theirs in zip(piece.blocks, surrogate.blocks, strict=True):
        ours.load_state_dict(theirs.block.state_dict())
    return piece, surrogate


def test_contiguous_labels_are_a_surrogate_to_the_bit(pair: tuple[TiedDepth, Surrogate]) -> None:
    piece, surrogate = pair
    x = torch.randn(3, 7, 16)
    assert piece.phase == surrogate.phase == Phase(0, 4)
    for start, end in ((0, 4), (0, 2), (1, 3), (2, 4)):
        ours, theirs = list(piece.steps(x, start, end)), list(surrogate.steps(x, start, end))
        assert len(ours) == end - start
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    inputs = list(torch.randn(4, 3, 7, 16))
    forced = zip(piece.teacher_forced(inputs), surrogate.teacher_forced(inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in forced)
    for model in (piece, surrogate):
        torch.stack([y.square().mean() for y in model.steps(x)]).sum().backward()
    for block, other in zip(piece.blocks, surrogate.blocks, strict=True):
        for a, b in zip(block.parameters(), other.block.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)


def test_labels_say_which_block_produces_which_layer(block_config: BlockConfig) -> None:
    piece = TiedDepth(block_config, [0, 1, 0, 1], "shuffled", seed=0)
    inputs = list(torch.randn(4, 2, 5, 16))
    x = inputs[0]
    for layer, label, y in zip(range(1, 5), piece.labels, piece.steps(x), strict=True):
        x = piece.blocks[label](x, torch.tensor(layer))
        assert torch.allclose(y, x, atol=1e-6)
    for layer, y in enumerate(piece.teacher_forced(inputs), start=1):
        expected = piece.blocks[piece.labels[layer - 1]](inputs[layer - 1], torch.tensor(layer))
        assert torch.allclose(y, expected, atol=1e-6)


def test_blocks_begin_alike_under_all_labels_of_one_k(block_config: BlockConfig) -> None:
    ways = {"a": [0, 0, 1, 1], "b": [1, 0, 1, 0], "c": [0, 1, 2, 2]}
    a, b, c = PartitionEnsemble(block_config, ways, seed=5)
    (alone,) = PartitionEnsemble(block_config, {"b": ways["b"]}, seed=5)
    (other,) = PartitionEnsemble(block_config, {"b": ways["b"]}, seed=6)
    state = {key: tensor.clone() for key, tensor in a.state_dict().items()}
    for same in (b, alone):
        assert all(torch.equal(tensor, state[key]) for key, tensor in same.state_dict().items())
    for different in (c, other):
        assert not torch.equal(different.blocks[0].attn.qkv.weight, a.blocks[0].attn.qkv.weight)
    assert not torch.equal(a.blocks[0].attn.qkv.weight, a.blocks[1].attn.qkv.weight)


def test_a_set_survives_the_disk(block_config: BlockConfig, tmp_path: Path) -> None:
    ways = {"k2-shuffled0": [1, 0, 1, 0], "k2-maxcut": [0, 0, 1, 1], "k1": [0, 0, 0, 0]}
    tied = PartitionEnsemble(block_config, ways, seed=1)
    again = raptor.load(save(tied, tmp_path))
    assert isinstance(again, PartitionEnsemble)
    assert again.labels == ways
    assert list(again.labels) == list(ways)
    x = torch.randn(2, 5, 16)
    for ours, theirs in zip(tied.students(), again.students(), strict=True):
        assert torch.equal(list(ours.steps(x))[-1], list(theirs.steps(x))[-1])


@pytest.mark.parametrize("labels", [[0, 2, 2, 0], [1, 1], []])
def test_labels_that_leave_a_number_out(block_config: BlockConfig, labels: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"labels of odd=.*: expected the numbers 0..k-1"):
        TiedDepth(block_config, labels, "odd")


def test_labels_of_several_depths(block_config: BlockConfig) -> None:
    with pytest.raises(ConfigError, match="all for the same number of layers"):
        PartitionEnsemble(block_config, {"a": [0, 1], "b": [0, 1, 1]})
