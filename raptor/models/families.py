"""Families of timm's ViTs whose layers share one token grid: how each embeds, and what its blocks take beside tokens.

Shapes: B batch, N tokens, D width, H heads, P patches, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout

FAMILIES = (VisionTransformer, Eva, Beit)  # plain ViTs; EVA, EVA-02, DINOv3, Perception Encoder; BEiT


def check_family(vit: nn.Module, name: str) -> None:
    """Refuse a model whose layers do not share one token grid, or whose tokens are not those of a token layout.

    Raises
    ------
    ConfigError
        With the reason.
    """
    kind, fix = type(vit).__name__, "choose another model, such as vit_*, deit_*, eva* or beit*"
    if not isinstance(vit, FAMILIES):
        sides = sorted({int(info["reduction"]) for info in getattr(vit, "feature_info", [])})
        reason = (
            f"{kind} has layers of {', '.join(map(str, sides))} pixels a token"
            if len(sides) > 1
            else f"blocks of {kind} take what only {kind} gives them"
        )
        families = " or ".join(family.__name__ for family in FAMILIES)
        expected = f"a ViT whose layers share one token grid, of timm's class {families} ({reason})"
        raise ConfigError.of("teacher.name", name, expected, fix)
    if not isinstance(vit.patch_embed, PatchEmbed):
        reason = f"this hybrid's come from a {type(vit.patch_embed).__name__}"
        raise ConfigError.of("teacher.name", name, f"a ViT that cuts the image into patches by itself ({reason})", fix)
    if vit.num_prefix_tokens != sum(_prefix(vit)):
        expected = "no tokens beside class token, registers and patches (this ViT has a distillation token)"
        raise ConfigError.of("teacher.name", name, expected, fix)
    if isinstance(vit, Eva) and vit.patch_drop is not None:
        expected = "0 where positions are rotary, since patches would lose theirs"
        raise ConfigError.of("teacher.options.patch_drop_rate", "above 0", expected, "remove it")


def layout_of(vit: Any) -> TokenLayout:
    """Return order and number of the tokens."""
    return TokenLayout(*_prefix(vit), vit.patch_embed.num_patches)


def _prefix(vit: Any) -> tuple[int, int]:
    """Count class tokens and registers."""
    registers = getattr(vit, "reg_token", None)
    return int(vit.cls_token is not None), 0 if registers is None else registers.shape[1]


def embed(vit: Any, images_BCHW: Tensor) -> Tensor:
    """Compute layer 0 of normalised images: ``(B, C, H, W)`` to ``(B, N, D)``."""
    x = vit.patch_embed(images_BCHW)
    if isinstance(vit, Eva):
        return vit.norm_pre(vit._pos_embed(x)[0])
    if isinstance(vit, Beit):
        x = torch.cat((vit.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return vit.pos_drop(x if vit.pos_embed is None else x + vit.pos_embed)
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))


def block_inputs(vit: Any) -> Callable[[int], dict[str, Tensor]]:
    """Compute what the blocks take beside the tokens.

    Returns
    -------
    Callable
        From a layer, 1..L, to keyword arguments of the block that makes it: none for plain ViTs, the rotary embedding
        for ``Eva``, the relative position bias that all layers share for ``Beit``.
    """
    if isinstance(vit, Beit) and vit.rel_pos_bias is not None:
        shared = {"shared_rel_pos_bias": vit.rel_pos_bias()}
        return lambda layer: shared
    rope = rotary(vit)
    if rope is None:
        return lambda layer: {}
    return lambda layer: {"rope": rope if rope.ndim == 2 else rope[layer - 1]}


def rotary(vit: Any) -> Tensor | None:
    """Compute the rotary embedding of the patches, sines then cosines.

    Returns
    -------
    Tensor or None
        ``(P, 2d)`` for all layers and heads, or ``(L, H, P, 2d)`` where each has its own; None if there is none.
    """
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    return rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=vit.patch_embed.grid_size)
