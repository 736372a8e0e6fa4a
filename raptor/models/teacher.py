"""The teacher: a ViT of timm whose layers share one token grid, opened so that every layer can be read."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.models.attention import no_rotation
from raptor.models.backbone import Backbone
from raptor.models.block import RecurrentBlock
from raptor.models.families import block_inputs, rotary
from raptor.models.vit import ViTSpec, ViTStem, spec_from_dict, spec_to_dict

Module = TypeVar("Module", bound=nn.Module)


class Teacher(Backbone):
    """A ViT with all its blocks.

    Parameters
    ----------
    spec
        Architecture and normalisation.
    vit
        The timm model to open; None builds one with random weights.
    """

    kind: ClassVar[str] = "teacher"

    def __init__(self, spec: ViTSpec, vit: VisionTransformer | None = None) -> None:
        vit = spec.build() if vit is None else vit
        blocks = nn.ModuleList(vit.blocks)
        super().__init__(ViTStem(spec, vit), len(blocks))
        self.blocks = blocks
        self.trained = False  # whether the weights come from anywhere but a random generator

    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end; see :meth:`Backbone.layers`."""
        inputs = block_inputs(self.shell.vit)
        for layer in range(start + 1, self.check_range(start, end) + 1):
            x_BND = self.blocks[layer - 1](x_BND, **inputs(layer))
            yield x_BND

    def apply_block(self, x_BND: Tensor, layer: int) -> Tensor:
        """Apply the block that produces a layer, 1..L, to tokens ``(B, N, D)`` of any layer."""
        return self.blocks[layer - 1](x_BND, **block_inputs(self.shell.vit)(layer))

    def block_of(self, layer: int) -> int:
        """Return the number of the block that produces a layer."""
        return layer - 1

    def rope_of(self, layer: int) -> Tensor | None:
        """Return the rotary embedding with which a layer, 1..L, is made.

        Returns
        -------
        Tensor or None
            Sines, then cosines, of all tokens, ``(heads or 1, N, 2d)``; those that are no patches are not rotated.
        """
        with torch.no_grad():
            rope = rotary(self.shell.vit)
        if rope is None:
            return None
        patches = rope[None] if rope.ndim == 2 else rope[layer - 1]
        heads, _, width = patches.shape
        prefix = self.layout.num_tokens - self.layout.patches
        return torch.cat([no_rotation(heads, prefix, width // 2).to(patches), patches], dim=1)

    def hand_rope(self, applications: Iterable[tuple[RecurrentBlock, Sequence[int]]]) -> None:
        """Copy the rotary embedding into tied blocks that take it.

        Parameters
        ----------
        applications
            Blocks, each with the layers that it produces; where the layers of the teacher have embeddings of their own,
            the block gets that of the middle one.
        """
        for block, layers in applications:
            rope = self.rope_of(layers[len(layers) // 2])
            if block.attn.rope is not None and rope is not None:
                block.attn.rope.copy_(rope)

    @property
    def has_relative_bias(self) -> bool:
        """Whether attention has a bias for the offset between two patches, of each layer or shared."""
        return any(name.endswith("relative_position_bias_table") for name, _ in self.named_parameters())

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.get_submodule("blocks.0.attn").num_heads)  # type: ignore[arg-type]

    def as_timm(self) -> VisionTransformer:
        """Whole model of timm; its parameters are the teacher's."""
        vit = copy.copy(self.shell.vit)
        blocks = nn.Sequential(*self.blocks) if isinstance(vit, VisionTransformer) else self.blocks
        vit._modules = {**vit._modules, "blocks": blocks}
        return vit

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {"vit": spec_to_dict(self.spec)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Teacher:
        """Teacher with random weights from :meth:`to_config`'s dictionary."""
        return cls(spec_from_dict(config["vit"]))


def freeze(module: Module) -> Module:
    """Put a module into eval mode and turn off all its gradients; returns the module."""
    return module.eval().requires_grad_(requires_grad=False)


def __getattr__(name: str) -> Any:
    """Give ``build_teacher``, which users' configurations name by its former place, this module."""
    if name == "build_teacher":
        return importlib.import_module("raptor.models.pretrained").build_teacher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
