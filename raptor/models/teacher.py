"""The teacher: any plain ViT of timm, opened so that every layer can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone, Shell, ViTSpec, spec_from_dict, spec_to_dict

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

    def __init__(self, spec: ViTSpec, vit: VisionTransformer | None = None) -> None:
        vit = spec.build() if vit is None else vit
        blocks = nn.ModuleList(vit.blocks)
        super().__init__(Shell(spec, vit), len(blocks))
        self.blocks = blocks
        self.trained = False  # whether the weights come from anywhere but a random generator

    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end; see :meth:`Backbone.layers`."""
        for block in self.blocks[start : self.check_range(start, end)]:
            x_BND = block(x_BND)
            yield x_BND

    @property
    def num_heads(self) -> int:
        """Attention heads of a block."""
        return int(self.get_submodule("blocks.0.attn").num_heads)  # type: ignore[arg-type]

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


def build_teacher(
    name: str,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    pretrained: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    position_std: float | None = None,
) -> Teacher:
    """Build a teacher from its configuration.

    Parameters
    ----------
    name
        timm's model name.
    options
        Keyword arguments of ``timm.create_model``.
    weights
        A run folder or model folder of this project, a ``.safetensors`` file in timm's own key layout, or
        ``package:NAME`` for a model that ships with the package. None leaves the weights random, unless
        ``pretrained``.
    pretrained
        Fetch timm's published weights from its hub.
    mean, std
        Normalisation of the input; None takes the model's own.
    position_std
        Standard deviation of random position embeddings; None leaves timm's 0.02, which a narrow ViT on a
        small data set takes hundreds of steps to see.

    Returns
    -------
    Teacher
        Trainable, in training mode; :func:`freeze` it to distil from it.

    Raises
    ------
    ConfigError
        If the configuration contradicts itself, or timm cannot build the model.
    ModelFileError
        If the weights are missing, damaged or of another shape.
    """
    if pretrained and weights is not None:
        raise ConfigError(f"teacher.pretrained=true and teacher.weights={weights} both name weights: give one of them")
    bare = ViTSpec(name, dict(options or {}))
    vit = bare.build(pretrained=pretrained)
    channels = int(vit.in_chans)
    spec = ViTSpec(
        name,
        dict(options or {}),
        _per_channel("mean", mean if mean is not None else vit.pretrained_cfg["mean"], channels),
        _per_channel("std", std if std is not None else vit.pretrained_cfg["std"], channels),
    )
    if position_std is not None:
        nn.init.trunc_normal_(vit.pos_embed, std=position_std)
    teacher = Teacher(spec, vit)
    if weights is not None:
        from raptor.models.io import read_weights

        read_weights(teacher, weights, key="teacher.weights")
    teacher.trained = pretrained or weights is not None
    return teacher


def _per_channel(key: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) != channels:
        raise ConfigError(f"teacher.{key}={list(values)} has {len(values)} values for {channels} channels")
    return tuple(float(v) for v in values)
