"""The teacher: any plain ViT of timm, opened so that every layer can be read."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.models.backbone import Backbone
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
        for block in self.blocks[start : self.check_range(start, end)]:
            x_BND = block(x_BND)
            yield x_BND

    def block_of(self, layer: int) -> int:
        """Number of the block that produces a layer."""
        return layer - 1

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.get_submodule("blocks.0.attn").num_heads)  # type: ignore[arg-type]

    def as_timm(self) -> VisionTransformer:
        """Whole model of timm; its parameters are the teacher's."""
        vit = copy.copy(self.shell.vit)
        vit._modules = {**vit._modules, "blocks": self.blocks}
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
    return module.eval().requires_grad_(False)


def __getattr__(name: str) -> Any:
    """Give ``build_teacher``, which users' configurations name by its former place, this module."""
    if name == "build_teacher":
        return importlib.import_module("raptor.models.pretrained").build_teacher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
