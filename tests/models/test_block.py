from typing import Any

import numpy as np
import pytest
import torch

from raptor.errors import ConfigError
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.surrogate import PhaseBlocks
from raptor.partition.phases import Phase
from tests import reference


def shaken(block: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter a value of its own, so that none hides behind an initial 0 or 1."""
    torch.manual_seed(1)
    for parameter in block.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return block.double()


def arrays(block: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in block.state_dict().items()}


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("depth_scaling", [True, False])
def test_block_equals_numpy(mlp: str, layer_scale: float | None, depth_scaling: bool) -> None:
    config = BlockConfig(16, 4, mlp, layer_scale=layer_scale, depth_scaling=depth_scaling)
    block = shaken(RecurrentBlock(config))
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    for t in (1, 5, 12):
        ours = block(x, torch.tensor(float(t))).detach().numpy()
        assert np.abs(ours - reference.block(x.numpy(), t, arrays(block), 4, mlp)).max() < 1e-9


def test_one_depth_index_per_sample_equals_scalar_calls() -> None:
    block = shaken(RecurrentBlock(BlockConfig(16, 2)))
    x, t = torch.randn(4, 5, 16, dtype=torch.float64), torch.tensor([1, 9, 3, 12])
    alone = torch.cat([block(x[i : i + 1], t[i]) for i in range(4)])
    assert torch.allclose(block(x, t), alone, atol=1e-12)


def test_rollout_equals_numpy() -> None:
    blocks = PhaseBlocks(BlockConfig(16, 2, layer_scale=0.1), [Phase(3, 8)], seed=0)
    shaken(blocks)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    ours = next(iter(blocks)).rollout(x).detach().numpy()
    weights, y = arrays(next(iter(blocks)).block), x.numpy()
    assert ours.shape == (2, 5, 6, 16)
    for i, layer in enumerate(range(4, 9)):
        y = reference.block(y, layer, weights, 2, "swiglu")
        assert np.abs(ours[:, i] - y).max() < 1e-9


def test_paper_shapes_and_initial_values() -> None:
    block = RecurrentBlock(BlockConfig(768, 12))
    assert block.mlp.fc1.weight.shape == (2 * 4 * 768, 768)
    assert block.mlp.fc2.weight.shape == (768, 4 * 768)
    assert block.depth is not None
    assert block.depth.fc2.weight.shape == (3 * 768, 16)
    assert 0.8e-4 < block.depth.fc2.weight.std().item() < 1.2e-4
    assert block.gamma1 is not None
    assert torch.equal(block.gamma1, torch.full((768,), 1e-5))
    assert block.norm1.eps == 1e-5
    assert RecurrentBlock(BlockConfig(768, 12, "gelu")).mlp.fc1.weight.shape == (4 * 768, 768)


def test_residual_stream_stays_float32_under_autocast() -> None:
    block = RecurrentBlock(BlockConfig(32, 2, layer_scale=1e-5))
    x = torch.randn(2, 5, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = block(x, torch.tensor(3.0))
    assert y.dtype == torch.float32
    full = block(x, torch.tensor(3.0))
    # in bfloat16 the stream itself would be rounded by about 1e-2
    assert (y - full).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_heads": 3}, "surrogate.block.num_heads=3: expected a divisor of"),
        ({"mlp": "relu"}, "swiglu or gelu"),
        ({"mlp_ratio": 0}, "mlp_ratio=0"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BlockConfig(**{"width": 16, "num_heads": 2, **options})
