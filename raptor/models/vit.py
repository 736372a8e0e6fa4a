"""A ViT of timm: what rebuilds it, and its stem, all that surrounds the blocks."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
from timm.models import eva, model_entrypoint
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.families import check_family, embed, layout_of
from raptor.models.heads import LinearProbe

# options of timm.create_model that open files; a model.json that comes from elsewhere must not choose any
LOADING = {
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "pretrained_strict",
}
# what timm and torch raise for options that do not fit each other
UNBUILDABLE = TypeError, AssertionError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError


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

        Parameters
        ----------
        pretrained
            Whether to fetch timm's published weights.
        **changes
            Keyword arguments of ``timm.create_model`` that go before ``options``.

        Raises
        ------
        ConfigError
            If timm does not have the name or an option, or the layers of the model do not share one token grid.
        """
        if not timm.is_model(self.name):
            raise _unknown(self.name)
        for key in sorted(LOADING & {*self.options, *changes}):
            expected = "no option by which timm reads files by itself"
            fix = "use teacher.weights or teacher.pretrained"
            raise ConfigError.of(f"teacher.options.{key}", self.options.get(key), expected, fix)
        if self.options.get("dynamic_img_size"):
            expected = "false, since a token layout has a fixed number of tokens"
            fix = "set teacher.options.img_size, to which the position embedding is resized"
            raise ConfigError.of("teacher.options.dynamic_img_size", self.options["dynamic_img_size"], expected, fix)
        # timm leaves the input size of some of these open
        fixed = {"dynamic_img_size": False} if model_entrypoint(self.name).__module__ == eva.__name__ else {}
        try:
            vit = timm.create_model(self.name, pretrained=pretrained, **{**fixed, **self.options, **changes})
        except OSError as error:
            fix = "fetch them elsewhere and set teacher.pretrained=false teacher.weights=FILE.safetensors"
            raise ConfigError.of("teacher.name", self.name, f"weights that can be fetched ({error})", fix) from error
        except UNBUILDABLE as error:
            expected = f"options that timm can build {self.name} with ({type(error).__name__}: {error})"
            fix = "correct teacher.options, or teacher.name"
            raise ConfigError.of("teacher.options", self.options, expected, fix) from error
        check_family(vit, self.name)
        size, patch = list(vit.patch_embed.img_size), vit.patch_embed.patch_size
        published = list((vit.pretrained_cfg or {}).get("input_size", ())[1:])  # SigLIP's 384 is no multiple of 14
        if size != published and (nearest := _nearest_size(size, patch)):
            expected = f"multiples of the patch size {patch[0]}, since the pixels beyond would be cut off"
            raise ConfigError.of("teacher.options.img_size", size, expected, f"set [{nearest[0]},{nearest[1]}]")
        return vit

    def build_stem(self) -> VisionTransformer:
        """Create the timm model for the sake of all that is not a block, where possible without its blocks."""
        try:
            vit = self.build(depth=0)
        except ConfigError:  # some architectures list options for each of their blocks
            return self.build()
        return self.build() if getattr(vit, "rope_mixed", False) else vit  # whose positions are of each block


def _nearest_size(size: Sequence[int], patch: Sequence[int]) -> list[int] | None:
    """Find the nearest image size that patches divide; None if they divide this one."""
    nearest = [max(1, round(side / part)) * part for side, part in zip(size, patch, strict=True)]
    return None if nearest == list(size) else nearest


def _unknown(name: str) -> ConfigError:
    near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5, cutoff=0.5)
    fix = f"write {' or '.join(near)}" if near else "see timm.list_models('vit*')"
    if "/" in name:
        fix = f"write local-dir:{name} for a folder of timm, hf-hub:{name} for a model of the hub"
    return ConfigError.of("teacher.name", name, "a model of timm", fix)


class ViTStem(nn.Module):
    """A ViT without its blocks: embedding, final norm and head.

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
        self.vit = spec.build_stem() if vit is None else vit
        self.vit.blocks = nn.Sequential()
        self.layout = layout_of(self.vit)
        features = self.layout.num_features(int(self.vit.embed_dim))
        self.linear_head = LinearProbe(features, spec.linear_head) if spec.linear_head else None

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Compute layer 0: patch embedding, position, class token and registers, ``(B, N, D)``."""
        return embed(self.vit, images_BCHW)

    def norm(self, x_BND: Tensor) -> Tensor:
        """Apply the final norm to the tokens of the last layer."""
        return self.vit.norm(x_BND)

    def head(self, x_BND: Tensor) -> Tensor:
        """Compute logits ``(B, classes)`` from the tokens of the last layer: final norm, pooling, classifier."""
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
