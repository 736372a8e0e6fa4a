"""The teacher: any plain ViT of timm, opened so that every layer can be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError, ModelFileError
from raptor.files import resolve
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe, read_linear
from raptor.models.vit import Shell, ViTSpec, spec_from_dict, spec_to_dict
from raptor.models.weights import convert, follows_meta

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

    def block_of(self, layer: int) -> int:
        """Number of the block that produces a layer."""
        return layer - 1

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
    head: str | Path | None = None,
    linear_head: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    position_std: float | None = None,
    drop_path: float | None = None,
) -> Teacher:
    """Build a teacher from its configuration.

    Parameters
    ----------
    name
        timm's model name.
    options
        Keyword arguments of ``timm.create_model``.
    weights
        A run folder or model folder of this project, ``package:NAME`` for a model that ships with the package,
        or a file with a state dict, ``.safetensors`` or ``.pth``, in timm's or the publisher's own key layout
        (:func:`~raptor.models.weights.convert`). None leaves the weights random, unless ``pretrained``.
    pretrained
        Fetch timm's published weights from its hub, where ``weights`` names none.
    head
        A linear classifier on ``[cls, mean patch]`` to use instead of the ViT's own head: the run folder of a
        linear probe, or a file with ``weight`` and ``bias``, as Meta publishes for DINOv2.
    linear_head
        Where ``head`` names none: classes of a new such classifier, to be trained or filled from ``weights``;
        0 keeps the ViT's own head.
    mean, std
        Normalisation of the input; None takes the model's own.
    position_std
        Standard deviation of random position embeddings; None leaves timm's 0.02, which a narrow ViT on a
        small data set takes hundreds of steps to see.
    drop_path
        Rate of stochastic depth, the same for every block; None leaves timm's, which grows from 0 at the first block
        to ``options.drop_path_rate`` at the last.

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
    probe = None if head is None else _read_head(head)  # before anything is fetched
    pretrained = pretrained and weights is None
    options = {key: value for key, value in (options or {}).items() if (key, value) != ("img_size", None)}
    vit = _build(ViTSpec(name, options), pretrained)
    channels = int(vit.in_chans)
    spec = ViTSpec(
        name,
        options,
        _per_channel("mean", mean if mean is not None else vit.pretrained_cfg["mean"], channels),
        _per_channel("std", std if std is not None else vit.pretrained_cfg["std"], channels),
        linear_head if probe is None else probe.num_classes,
    )
    if position_std is not None:
        nn.init.trunc_normal_(vit.pos_embed, std=position_std)
    if drop_path is not None:
        _drop_evenly(vit, drop_path)
    teacher = Teacher(spec, vit)
    if weights is not None:
        from raptor.models.io import read_weights

        read_weights(teacher, weights, key="teacher.weights", own_head=probe is not None)
    if probe is not None:
        _put_head(teacher.shell, probe, f"teacher.head={head}")
    teacher.trained = pretrained or weights is not None
    return teacher


def _build(spec: ViTSpec, pretrained: bool) -> VisionTransformer:
    if not (pretrained and follows_meta(spec.name)):
        return spec.build(pretrained=pretrained)
    # at the published size first, since timm would resize the position embedding in its own way
    options = {key: value for key, value in spec.options.items() if key != "img_size"}
    published = ViTSpec(spec.name, options).build(pretrained=True)
    vit = spec.build()
    vit.load_state_dict(convert(vit, spec.name, published.state_dict(), f"teacher.name={spec.name}"))
    return vit


def _drop_evenly(vit: VisionTransformer, rate: float) -> None:
    if isinstance(rate, bool) or not 0 <= rate < 1:
        raise ConfigError(f"teacher.drop_path={rate} is a share of the passes that skip a block: set it within 0..0.9")
    for block in vit.blocks:
        if not (hasattr(block, "drop_path1") and hasattr(block, "drop_path2")):
            raise ConfigError(
                f"teacher.drop_path={rate}: a {type(block).__name__} has other branches than attention and MLP; set it "
                "to null and use teacher.options.drop_path_rate"
            )
        block.drop_path1, block.drop_path2 = (DropPath(rate) if rate > 0 else nn.Identity() for _ in range(2))


def _read_head(source: str | Path) -> LinearProbe:
    from raptor.models.io import load

    where = f"teacher.head={source}"
    if resolve(source).is_dir():
        probe = load(source)
        if not isinstance(probe, LinearProbe):
            raise ConfigError(f"{where} holds a {type(probe).__name__}, a LinearProbe is needed")
        return probe
    return read_linear(resolve(source), where)


def _put_head(shell: Shell, probe: LinearProbe, where: str) -> None:
    assert shell.linear_head is not None
    if (ours := shell.linear_head.linear.in_features) != (theirs := probe.linear.in_features):
        raise ModelFileError(
            f"{where} takes {theirs} features, [cls, mean patch] of this teacher are {ours}: take the head of its size"
        )
    shell.linear_head.load_state_dict(probe.state_dict())


def _per_channel(key: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) != channels:
        raise ConfigError(f"teacher.{key}={list(values)} has {len(values)} values for {channels} channels")
    return tuple(float(v) for v in values)
