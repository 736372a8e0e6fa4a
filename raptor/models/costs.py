"""Count what the blocks of a backbone compute for one image.

Shapes: N tokens, D width.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from raptor.models.rival import Rival
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import Teacher


def block_flops(model: Teacher | Surrogate | Rival) -> int:
    """Count the floating-point operations of all applications of blocks to the tokens of one image.

    Matrix products count two operations for each multiplication: ``2 N`` times the weights of every linear map of a
    block, and ``4 N^2 D`` for attention. Norms, activations, depth scaling and the stem are left out.

    Parameters
    ----------
    model
        A teacher, surrogate or rival.
    """
    return sum(_flops(block, model.layout.num_tokens, model.width) for block in _applied(model))


def _applied(model: Any) -> list[nn.Module]:
    if isinstance(model, Rival):
        return list(model.applied())
    if isinstance(model, Surrogate):
        return [part.block for part in model.blocks for _ in range(part.phase.end - part.phase.start)]
    return list(model.blocks)


def _flops(block: nn.Module, tokens: int, width: int) -> int:
    linear = [part for name, part in block.named_modules() if isinstance(part, nn.Linear) and "depth" not in name]
    attention = 4 * tokens**2 * width if hasattr(block, "attn") else 0
    return 2 * tokens * sum(part.weight.numel() for part in linear) + attention
