"""A plain ViT of timm: what rebuilds it, and its shell, all that surrounds the blocks."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.heads import LinearProbe
from raptor.models.tokens import TokenLayout

# options of timm.create_model that open files; a model.json that comes from elsewhere must not choose any
LOADING = {
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "pretrained_strict",
}


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
        if loading := sorted(LOADING & {*self.options, *changes}):
            raise ConfigError(
                f"teacher.options.{loading[0]} would make timm read files by itself: use teacher.weights or "
                "teacher.pretrained"
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
        except (TypeError, AssertionError, ValueError, RuntimeError, LookupError, AttributeError) as error:
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
        size, patch = list(vit.patch_embed.img_size), vit.patch_embed.patch_size
        published = list((vit.pretrained_cfg or {}).get("input_size", ())[1:])  # SigLIP's 384 is no multiple of 14
        if size != published and (nearest := _nearest_size(size, patch)):
            expected = f"multiples of the patch size {patch[0]}, since the pixels beyond would be cut off"
            raise ConfigError.of("teacher.options.img_size", size, expected, f"set [{nearest[0]},{nearest[1]}]")
        if vit.num_prefix_tokens != int(vit.has_class_token) + vit.num_reg_tokens:
            raise ConfigError(
                f"teacher.name={self.name!r} has tokens beside class token, registers and patches (a distillation "
                "token?), which no token layout here describes: choose another variant"
            )
        return vit


def _nearest_size(size: Sequence[int], patch: Sequence[int]) -> list[int] | None:
    """The nearest image size that patches divide; None if they divide this one."""
    nearest = [max(1, round(side / part)) * part for side, part in zip(size, patch, strict=True)]
    return None if nearest == list(size) else nearest


class ViTStem(nn.Module):
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


def spec_to_dict(spec: ViTSpec) -> dict[str, Any]:
    """Plain dictionary of a spec for ``model.json``."""
    return {**asdict(spec), "mean": list(spec.mean), "std": list(spec.std)}


def spec_from_dict(values: dict[str, Any]) -> ViTSpec:
    """Spec from the dictionary of a ``model.json``; keys of later versions are passed over."""
    known = inspect.signature(ViTSpec).parameters
    values = {key: value for key, value in values.items() if key in known}
    return ViTSpec(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
