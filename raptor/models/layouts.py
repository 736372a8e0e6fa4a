"""Key layouts of ViTs: the ViT in a state dict, and its weights by timm's names at the input size of a model."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn

from raptor.errors import ModelFileError
from raptor.models.weights import follows_meta, resize_position_meta

log = logging.getLogger(__name__)
# the weight of the patch embedding in each layout that timm reads; OpenCLIP's before that which its towers contain
ANCHORS = (
    "visual.trunk.patch_embed.proj.weight",  # OpenCLIP around a timm tower
    "patch_embed.proj.weight",  # timm, Meta's DINO, MAE, DeiT, EVA, BEiT
    "visual.conv1.weight",  # OpenAI's CLIP, OpenCLIP, Perception Encoder
    "preprocessor.patchifier.proj.weight",  # AIMv2
    "radio_model.model.patch_generator.embedder.weight",
    "beit3.vision_embed.proj.weight",
)
TOWER = "conv1.weight"  # of CLIP, alone
AVERAGED = {"teacher", "ema", "momentum", "target", "averaged"}  # of two ViTs in one file, the one that is evaluated
PRETRAINING = re.compile(r"(decoder|mask_token|lm_head|predictor|projector)")  # parts that no ViT has afterwards
WRAPPED = re.compile(r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
FOREIGN = {
    "embeddings.patch_embeddings.projection.weight": "Hugging Face transformers",
    "conv_proj.weight": "torchvision",
}
FILTERS: tuple[tuple[type[nn.Module], Any], ...] = tuple(
    (getattr(module, name), module.checkpoint_filter_fn)
    for module, name in ((vision_transformer, "VisionTransformer"), (eva, "Eva"), (beit, "Beit"))
)


@dataclass(frozen=True)
class StoredViT:
    """A ViT as a file holds it.

    Parameters
    ----------
    where
        How to name the file in errors.
    prefix
        What precedes the names of the ViT in the file, such as ``module.backbone.``.
    tensors
        The ViT's tensors, without the prefix.
    names
        Name in the file of each of them.
    """

    where: str
    prefix: str
    tensors: dict[str, Tensor]
    names: dict[str, str]


def find_vit(state: Mapping[str, Tensor], where: str) -> StoredViT:
    """Find the ViT in a state dict by its patch embedding; what precedes its name is the prefix of all names.

    Raises
    ------
    ModelFileError
        If there is none in a layout that is known, or several of which none is an average of the others.
    """
    # of a teacher of this project; and of wrappers around single blocks
    names = {WRAPPED.sub("", re.sub(r"(^|\.)shell\.vit\.", r"\1", key)): key for key in state}
    for anchor in ANCHORS:
        prefixes = [key.removesuffix(anchor) for key in names if key == anchor or key.endswith(f".{anchor}")]
        if prefixes:
            prefix = _choose(prefixes, where)
            break
    else:
        if TOWER not in names or "class_embedding" not in names:
            raise _no_vit(state, where)
        prefix, names = "", {f"visual.{key}": name for key, name in names.items()}
    names = {key.removeprefix(prefix): name for key, name in names.items() if key.startswith(prefix)}
    return StoredViT(where, prefix, {key: state[name] for key, name in names.items()}, names)


def _choose(prefixes: list[str], where: str) -> str:
    averaged = [prefix for prefix in prefixes if AVERAGED & set(re.split(r"[._]", prefix))]
    if len(prefixes) > 1 and len(averaged) != 1:
        raise ModelFileError(
            f"{where}: expected one ViT (it holds those of {', '.join(p or 'no prefix' for p in prefixes)}). Fix: save "
            "the state_dict() of one of them."
        )
    if len(prefixes) > 1:
        log.info("%s: weights of %s, not of the others (%s)", where, averaged[0], ", ".join(prefixes))
        return averaged[0]
    return prefixes[0]


def _no_vit(state: Mapping[str, Tensor], where: str) -> ModelFileError:
    foreign = [maker for anchor, maker in FOREIGN.items() if any(key.endswith(anchor) for key in state)]
    held = f"it holds {len(state)} tensors: {_some(state)}" + (f", names of {foreign[0]}" if foreign else "")
    known = "timm's, or Meta's, DeiT's, MAE's, EVA's, BEiT's, OpenAI's or OpenCLIP's own"
    fix = (
        "take the weights of timm, teacher.name=hf-hub:OWNER/NAME or teacher.pretrained=true"
        if foreign
        else "give weights of a ViT, under any prefix"
    )
    return ModelFileError(
        f"{where}: expected a ViT in a key layout that is known: {known}, in which the patch embedding is "
        f"{ANCHORS[1]} or {ANCHORS[2]} ({held}). Fix: {fix}."
    )


def convert(vit: vision_transformer.VisionTransformer, name: str, stored: StoredViT) -> dict[str, Tensor]:
    """Convert weights to the key layout and the input size of a timm model.

    The layouts are those that timm reads (its own, Meta's DINOv2 and DINOv3, MAE, DeiT, EVA, BEiT, Perception Encoder,
    OpenAI's and OpenCLIP's state dicts). A position embedding of another grid is resized: bicubic with antialias,
    except for DINOv2 without registers, where :func:`~raptor.models.weights.resize_position_meta` does what Meta does.

    Parameters
    ----------
    vit
        The whole model that is to take the weights.
    name
        timm's name of it.
    stored
        The weights.

    Returns
    -------
    dict of str to Tensor
        One tensor for each of the model's, of its shape.

    Raises
    ------
    ModelFileError
        If the layout cannot be converted, or a tensor is missing, too many, or of another shape; it names them as the
        file does.
    """
    # Meta's training checkpoints have blocks.<chunk>.<block>
    state = {re.sub(r"^blocks\.\d+\.(\d+\.)", r"blocks.\1", key): x for key, x in stored.tensors.items()}
    names = {id(tensor): stored.names[key] for key, tensor in stored.tensors.items()}
    rows, columns = vit.patch_embed.grid_size
    options: dict[str, Any] = {"adapt_layer_scale": True} if name.startswith("deit3") else {}
    if name.startswith("flexivit"):
        options |= {"interpolation": "bilinear", "antialias": False}
    checkpoint_filter = next(function for cls, function in FILTERS if isinstance(vit, cls))
    try:
        if follows_meta(name):
            state["pos_embed"] = resize_position_meta(state["pos_embed"], rows, columns)
        with contextlib.redirect_stdout(io.StringIO()):  # timm prints what a model lacks
            state = dict(checkpoint_filter(state, vit, **options))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise ModelFileError(
            f"{stored.where}: expected a key layout that fits {name} ({type(error).__name__}: {error}; it holds "
            f"{_some(stored.names.values())}). Fix: set teacher.name to the model that made the file."
        ) from error
    expected = vit.state_dict()
    _report_resized(expected, state, stored)
    left = [key for key in state.keys() - expected.keys() if PRETRAINING.match(key)]
    if not vit.num_classes:
        left += [key for key in state if key.startswith(("head.", "head_dist."))]
    if left:
        log.info("%s: passed over %s", stored.where, _some(left))
    state = {key: tensor for key, tensor in state.items() if key not in left}
    _check(expected, state, name, stored, names)
    return state


def _report_resized(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], stored: StoredViT) -> None:
    """Log which embeddings were resized to the model's image or patch size."""
    shapes = {tuple(x.shape) for x in stored.tensors.values()}
    for key, what in (("patch_embed.proj.weight", "patch embedding"), ("pos_embed", "position embedding")):
        before = stored.tensors.get(key)
        if before is not None and key in expected and key in state and tuple(state[key].shape) not in shapes:
            log.info("%s: %s resized from %s to %s", stored.where, what, tuple(before.shape), tuple(state[key].shape))


def _check(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, stored: StoredViT, names: Mapping[int, str]
) -> None:
    """Compare names and shapes with those of a model, and report in the names of the file."""

    def called(key: str) -> str:
        return names.get(id(state.get(key)), f"{stored.prefix}{key}")

    missing = [called(key) for key in expected if key not in state]
    extra = [called(key) for key in state if key not in expected]
    shapes = [
        f"{called(key)} is {tuple(tensor.shape)}, expected {tuple(expected[key].shape)}"
        for key, tensor in state.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    if not (missing or extra or shapes):
        return
    problems = [f"{len(missing)} tensors are missing ({_some(missing)})"] if missing else []
    problems += [f"{len(extra)} are not of this model ({_some(extra)})"] if extra else []
    theirs, ours = _facts(state), _facts(expected)
    differing = [key for key in ours if ours[key] != theirs[key]]
    if differing == ["classes"]:
        leave = ", or 0 to leave the head out" if theirs["classes"] else ""
        fix = f"set teacher.options.num_classes={theirs['classes']}{leave}"
    else:
        fix = "set teacher.name and teacher.options to those of the model that made the file"
    raise ModelFileError(
        f"{stored.where}: expected the weights of {name} ({_describe(ours)}), it holds {_describe(theirs)}: "
        f"{'; '.join(problems + shapes[:3])}. Fix: {fix}."
    )


def _facts(state: Mapping[str, Tensor]) -> dict[str, int]:
    blocks = [int(found[1]) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))]
    width = state["patch_embed.proj.weight"].shape[0] if "patch_embed.proj.weight" in state else 0
    classes = state["head.weight"].shape[0] if "head.weight" in state else 0
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    return {"width": width, "blocks": max(blocks, default=-1) + 1, "registers": registers, "classes": classes}


def _describe(facts: Mapping[str, int]) -> str:
    return "width {width}, {blocks} blocks, {registers} registers, {classes} classes".format(**facts)


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
