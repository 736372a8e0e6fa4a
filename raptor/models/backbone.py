"""The one protocol that teacher and surrogate keep, and what they share: a ViT without its blocks."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.heads import LinearProbe
from raptor.models.tokens import TokenLayout


@dataclass(frozen=True)
class ViTSpec:
    """What rebuilds the architecture of a timm ViT.

    Parameters
    ----------
    name
        timm's model name.
    options
        Keyword arguments of ``timm.create_model`` (``img_size``, ``patch_size``, ``num_classes``, ...).
    mean, std
        Normalisation of the input, one value per channel on the 0..1 scale.
    linear_head
        Classes of a linear head on ``[cls, mean patch]``, which then takes the place of the ViT's own head; 0
        is none.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    linear_head: int = 0

    def build(self, *, pretrained: bool = False, **changes: Any) -> VisionTransformer:
        """Create the timm model.

        Raises
        ------
        ConfigError
            If timm does not know the name or an option, or the model is no plain ViT.
        """
        if not timm.is_model(self.name):
            near = timm.list_models(f"*{self.name.split('.')[0][:8]}*")[:5]
            raise ConfigError(
                f"teacher.name={self.name!r} is no model of timm; similar: {', '.join(near) or 'none'} "
                "(timm.list_models('vit*') lists all)"
            )
        if self.options.get("dynamic_img_size"):
            raise ConfigError(
                "teacher.options.dynamic_img_size=true leaves the number of tokens open, which a token layout must "
                "know: set teacher.options.img_size to the size you want; the position embedding is resized to it"
            )
        try:
            vit = timm.create_model(self.name, pretrained=pretrained, **{**self.options, **changes})
        except OSError as error:
            raise ConfigError(
                f"the weights of teacher.name={self.name!r} cannot be fetched ({error}); fetch them elsewhere and set "
                "teacher.pretrained=false teacher.weights=FILE.safetensors"
            ) from error
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"timm cannot build teacher.name={self.name!r} with {self.options}: {error}") from error
        if not isinstance(vit, VisionTransformer):
            raise ConfigError(
                f"teacher.name={self.name!r} is a {type(vit).__name__}, no plain Vision Transformer: its layers "
                "do not share one token grid; choose one whose timm class is VisionTransformer, such as vit_* or deit_*"
            )
        if not isinstance(vit.patch_embed, PatchEmbed):
            raise ConfigError(
                f"teacher.name={self.name!r} is a hybrid (its patches come from a {type(vit.patch_embed).__name__}), "
                "no plain Vision Transformer: choose one that cuts the image into patches by itself"
            )
        if vit.num_prefix_tokens != int(vit.has_class_token) + vit.num_reg_tokens:
            raise ConfigError(
                f"teacher.name={self.name!r} has tokens beside class token, registers and patches (a distillation "
                "token?), which no token layout here describes: choose another variant"
            )
        return vit


class Shell(nn.Module):
    """A ViT without its blocks: embedding, final norm and head, frozen.

    Parameters
    ----------
    spec
        Architecture of the whole ViT.
    vit
        The ViT whose weights to take; its blocks are removed. None builds one with random weights.
    """

    def __init__(self, spec: ViTSpec, vit: VisionTransformer | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.vit = spec.build(depth=0) if vit is None else vit
        self.vit.blocks = nn.Sequential()
        grid = self.vit.patch_embed.num_patches
        self.layout = TokenLayout(int(self.vit.has_class_token), self.vit.num_reg_tokens, grid)
        features = self.layout.num_features(int(self.vit.embed_dim))
        self.linear_head = LinearProbe(features, spec.linear_head) if spec.linear_head else None

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Layer 0: patch embedding, position, class token and registers, ``(B, N, D)``."""
        vit = self.vit
        return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images_BCHW))))

    def norm(self, x_BND: Tensor) -> Tensor:
        """Final norm of the tokens of the last layer."""
        return self.vit.norm(x_BND)

    def head(self, x_BND: Tensor) -> Tensor:
        """Logits ``(B, classes)`` from the tokens of the last layer: final norm, pooling, classifier."""
        x_BND = self.vit.norm(x_BND)
        if self.linear_head is not None:
            return self.linear_head(self.layout.features(x_BND))
        return self.vit.forward_head(x_BND)


class Backbone(nn.Module, ABC):
    """Images in, tokens out: the protocol of teacher and surrogate.

    Parameters
    ----------
    shell
        Embedding, final norm and head.
    num_layers
        Number of layers L.
    """

    def __init__(self, shell: Shell, num_layers: int) -> None:
        super().__init__()
        self.shell = shell
        self.num_layers = num_layers

    @property
    def layout(self) -> TokenLayout:
        """Order of the tokens."""
        return self.shell.layout

    @property
    def spec(self) -> ViTSpec:
        """Architecture of the ViT that this is, or stands for."""
        return self.shell.spec

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return int(self.shell.vit.embed_dim)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier head, 0 if there is none."""
        return self.spec.linear_head or int(self.shell.vit.num_classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input image."""
        height, width = self.shell.vit.patch_embed.img_size
        return int(self.shell.vit.in_chans), int(height), int(width)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Layer 0 of normalised images: ``(B, C, H, W)`` to ``(B, N, D)``."""
        return self.shell.embed(images_BCHW)

    @abstractmethod
    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end one after the other; as :meth:`layers`, without keeping them all."""

    def layers(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Layers start+1..end from the tokens of layer ``start``.

        Parameters
        ----------
        x_BND
            Tokens of layer ``start``, ``(B, N, D)``, before the final norm.
        start, end
            Layer indices with 0 <= start <= end <= L; ``end`` None means L.

        Returns
        -------
        Tensor
            ``(B, end - start, N, D)``.

        Raises
        ------
        ConfigError
            If the range does not fit.
        """
        outputs = list(self.steps(x_BND, start, end))
        return torch.stack(outputs, dim=1) if outputs else x_BND.new_empty((len(x_BND), 0, *x_BND.shape[1:]))

    def rollout(self, x_BND: Tensor) -> Tensor:
        """All layers 1..L from layer 0: ``(B, N, D)`` to ``(B, L, N, D)``."""
        return self.layers(x_BND)

    def norm(self, x_BND: Tensor) -> Tensor:
        """Final norm of the tokens of layer L."""
        return self.shell.norm(x_BND)

    def head(self, x_BND: Tensor) -> Tensor:
        """Logits from the tokens of layer L, before the final norm."""
        return self.shell.head(x_BND)

    def last(self, x_BND: Tensor, start: int = 0) -> Tensor:
        """Tokens of layer L from those of layer ``start``, before the final norm."""
        last = x_BND
        for last in self.steps(x_BND, start):  # noqa: B007 (only the last one counts)
            pass
        return last

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Final tokens ``(B, N, D)`` of normalised images, after the final norm."""
        return self.norm(self.last(self.embed(images_BCHW)))

    def classify(self, images_BCHW: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of normalised images."""
        return self.head(self.last(self.embed(images_BCHW)))

    def check_range(self, start: int, end: int | None) -> int:
        """The last layer asked for, once the range is known to fit.

        Raises
        ------
        ConfigError
            If not 0 <= start <= end <= L.
        """
        stop = self.num_layers if end is None else end
        if not 0 <= start <= stop <= self.num_layers:
            raise ConfigError(f"layers {start}..{stop} do not lie within 0..{self.num_layers}")
        return stop

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which ``from_config`` builds the same architecture."""


def spec_to_dict(spec: ViTSpec) -> dict[str, Any]:
    """Plain dictionary of a spec for ``model.json``."""
    return {**asdict(spec), "mean": list(spec.mean), "std": list(spec.std)}


def spec_from_dict(values: dict[str, Any]) -> ViTSpec:
    """Spec from the dictionary of a ``model.json``; keys of later versions are passed over."""
    known = inspect.signature(ViTSpec).parameters
    values = {key: value for key, value in values.items() if key in known}
    return ViTSpec(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
