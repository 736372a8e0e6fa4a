"""Count floating-point operations of teachers and tied blocks, on shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.vit import ViTSpec

PHASES = [(0, 7), (7, 10), (0, 4), (4, 7), (10, 12), (7, 12)]  # of Table 1
ANNEALED = 0.25  # share of the steps of stage 1 in which teacher forcing runs beside the rollout


@dataclass(frozen=True)
class Operations:
    """Operations for one image, in matrix products and attention.

    Attributes
    ----------
    layers, tokens, width
        L, N and D of the teacher.
    embed
        Of the patch embedding.
    teacher_layer
        Of one layer of the teacher, forward.
    block
        Of one step of a tied block, forward.
    block_trained
        The same, forward and backward.
    """

    layers: int
    tokens: int
    width: int
    embed: float
    teacher_layer: float
    block: float
    block_trained: float

    def stage1(self, start: int, end: int, annealed: float = ANNEALED) -> float:
        """Count stage 1 on one phase, with the teacher and a share of teacher-forced steps."""
        return self.teacher(end) + (1 + annealed) * (end - start) * self.block_trained

    def stage1_together(self, phases: list[tuple[int, int]], annealed: float = ANNEALED) -> float:
        """Count stage 1 on several phases in one run, off one pass of the teacher."""
        steps = sum(end - start for start, end in phases)
        return self.teacher(max(end for _, end in phases)) + (1 + annealed) * steps * self.block_trained

    def stage2(self) -> float:
        """Count stage 2, with the teacher."""
        return self.teacher(self.layers) + self.layers * self.block_trained

    def teacher(self, end: int) -> float:
        """Count a forward pass of the teacher up to a layer."""
        return self.embed + end * self.teacher_layer

    def surrogate(self) -> float:
        """Count a forward pass of a surrogate."""
        return self.embed + self.layers * self.block


def count(call: Callable[[], object]) -> float:
    """Count the operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def operations(name: str, size: int | tuple[int, int], mlp: str = "swiglu") -> Operations:
    """Count operations of a ViT of timm at an image size, and of tied blocks of its width."""
    with torch.device("meta"):
        vit = ViTSpec(name, {"img_size": size, "num_classes": 0}).build().eval()
        images = torch.empty(1, 3, *((size, size) if isinstance(size, int) else size))
        x = vit._pos_embed(vit.patch_embed(images))
        config = BlockConfig(vit.embed_dim, vit.blocks[0].attn.num_heads, mlp, depth_scaling=False)
        block = RecurrentBlock(config)  # depth scaling is less than a thousandth of it
        t = torch.ones(())
        with torch.no_grad():
            embed = count(lambda: vit.patch_embed(images))
            layer = count(lambda: vit.blocks[0](x))
            forward = count(lambda: block(x, t))
        x = x.detach().requires_grad_()
        both = count(lambda: block(x, t).sum().backward())
    return Operations(len(vit.blocks), x.shape[1], x.shape[2], embed, layer, forward, both)
