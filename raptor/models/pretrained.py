"""Teachers from their configuration, with weights of this project, of timm or of their publisher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from raptor.errors import ConfigError, ModelFileError
from raptor.models.checkpoints import read_tensors
from raptor.models.heads import LinearProbe, read_linear
from raptor.models.io import DESCRIPTION, describe, read, read_checked
from raptor.models.layouts import StoredViT, convert, find_vit
from raptor.models.published import is_published, open_published
from raptor.models.teacher import Teacher
from raptor.models.vit import ViTSpec, ViTStem
from raptor.models.weights import fill, fit_biases, fit_positions, follows_meta
from raptor.utils.files import resolve

POSITIONS = "shell.vit.pos_embed"


def build_teacher(
    name: str,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    *,
    pretrained: bool = False,
    head: str | Path | None = None,
    linear_head: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    position_std: float | None = None,
    drop_path: float | None = None,
    published_weights: bool = True,
) -> Teacher:
    """Build a teacher from its configuration.

    Parameters
    ----------
    name
        timm's model name; or ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME`` for a model published in timm's format,
        whose weights are then taken where ``weights`` names none.
    options
        Keyword arguments of ``timm.create_model``, before those of a published model.
    weights
        A run folder or model folder of this project, ``package:NAME`` for a model that ships with the package,
        or a file with a state dict, ``.safetensors`` or ``.pth``, in timm's or the publisher's own key layout
        (:func:`~raptor.models.layouts.convert`). None leaves the weights random, unless ``pretrained``.
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
    published_weights
        Whether a model published in timm's format brings its weights where ``weights`` names none.

    Returns
    -------
    Teacher
        Trainable, in training mode; :func:`~raptor.models.teacher.freeze` it to distil from it.

    Raises
    ------
    ConfigError
        If the configuration contradicts itself, or timm cannot build the model.
    ModelFileError
        If the weights are missing, damaged or of another shape.
    """
    probe = None if head is None else _read_head(head)  # before anything is fetched
    options = {key: value for key, value in (options or {}).items() if (key, value) != ("img_size", None)}
    if is_published(name):
        published = open_published(name, fetch_weights=published_weights and weights is None)
        name, options, pretrained = published.name, {**published.options, **options}, False
        mean, std = mean or published.mean, std or published.std
        if published_weights:
            weights = weights or published.weights
    pretrained = pretrained and weights is None
    vit = _build(ViTSpec(name, options), pretrained=pretrained)
    channels = int(vit.in_chans)
    spec = ViTSpec(
        name,
        options,
        _per_channel("mean", mean if mean is not None else vit.pretrained_cfg["mean"], channels),
        _per_channel("std", std if std is not None else vit.pretrained_cfg["std"], channels),
        linear_head if probe is None else probe.num_classes,
    )
    if position_std is not None:
        if vit.pos_embed is None:
            expected = f"null, since {name} has no position embedding that is added to the tokens"
            raise ConfigError.of("teacher.position_std", position_std, expected, "set it to null")
        nn.init.trunc_normal_(vit.pos_embed, std=position_std)
    if drop_path is not None:
        _drop_evenly(vit, drop_path)
    teacher = Teacher(spec, vit)
    if weights is not None:
        read_weights(teacher, weights, key="teacher.weights", own_head=probe is not None)
    if probe is not None:
        _put_head(teacher.shell, probe, f"teacher.head={head}")
    teacher.trained = pretrained or weights is not None
    return teacher


def _build(spec: ViTSpec, *, pretrained: bool) -> VisionTransformer:
    if not (pretrained and follows_meta(spec.name)):
        return spec.build(pretrained=pretrained)
    # at the published size first, since timm would resize the position embedding in its own way
    options = {key: value for key, value in spec.options.items() if key != "img_size"}
    published = ViTSpec(spec.name, options).build(pretrained=True)
    vit = spec.build()
    state = published.state_dict()
    stored = StoredViT(f"teacher.name={spec.name}", "", state, {key: key for key in state})
    vit.load_state_dict(convert(vit, spec.name, stored))
    return vit


def _drop_evenly(vit: VisionTransformer, rate: float) -> None:
    if isinstance(rate, bool) or not 0 <= rate < 1:
        raise ConfigError.of("teacher.drop_path", rate, "number >= 0 < 1, a share of the passes", "set it to 0.1")
    for block in vit.blocks:
        if not (hasattr(block, "drop_path1") and hasattr(block, "drop_path2")):
            expected = f"null, since a {type(block).__name__} has other branches than attention and MLP"
            raise ConfigError.of("teacher.drop_path", rate, expected, "use teacher.options.drop_path_rate")
        block.drop_path1, block.drop_path2 = (DropPath(rate) if rate > 0 else nn.Identity() for _ in range(2))


def _read_head(source: str | Path) -> LinearProbe:
    where = f"teacher.head={source}"
    if resolve(source).is_dir():
        if (kind := describe(source)["kind"]) != LinearProbe.kind:
            raise ConfigError.of(
                "teacher.head", source, f"a LinearProbe (it holds a {kind})", "name the run of a probe"
            )
        probe: LinearProbe = read(source, LinearProbe)
        return probe
    return read_linear(resolve(source), where)


def _put_head(shell: ViTStem, probe: LinearProbe, where: str) -> None:
    assert shell.linear_head is not None
    if (ours := shell.linear_head.linear.in_features) != (theirs := probe.linear.in_features):
        raise ModelFileError(
            f"{where}: expected a head on the {ours} features of this teacher's [cls, mean patch] (it takes {theirs}). "
            "Fix: take the head of its size."
        )
    shell.linear_head.load_state_dict(probe.state_dict())


def _per_channel(key: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) != channels:
        raise ConfigError.of(f"teacher.{key}", list(values), f"{channels} numbers, one a channel", "correct it")
    return tuple(float(v) for v in values)


def read_weights(model: nn.Module, source: str | Path, key: str = "", *, own_head: bool = False) -> None:
    """Fill a model from a model folder, or a teacher from a plain weight file.

    Parameters
    ----------
    model
        The model to fill, in place.
    source
        Folder; ``package:NAME`` for one that ships with the package; or a file with a state dict,
        ``.safetensors`` or ``.pth``, in a key layout that :func:`~raptor.models.layouts.convert` reads.
    key
        Configuration key to name in errors.
    own_head
        Whether a folder's weights may lack the linear head of the model, which then keeps its own.

    Raises
    ------
    ModelFileError
        If the source is missing, damaged or of another shape; the model is then unchanged.
    """
    where = f"{key}={source}" if key else str(source)
    head = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("shell.linear_head.")}
    source = resolve(source)
    if source.is_dir():
        if not (source / DESCRIPTION).is_file():
            held = ", ".join(sorted(path.name for path in source.iterdir())[:4]) or "nothing"
            expected = f"a run folder with {DESCRIPTION}, or a weight file (this folder holds {held})"
            fix = "name the file, or set teacher.name=local-dir:FOLDER where timm wrote it"
            raise ModelFileError.of(key or "folder", source, expected, fix)
        description = describe(source)
        tensors = read_checked(source, description, where)
        if isinstance(model, Teacher):  # at any input size
            sizes = [o.get("img_size") for o in (_vit_options(description), model.spec.options)]
            same = sizes[0] == sizes[1]  # 8x8 and 4x16 have the same number of patches
            if POSITIONS in tensors:
                tensors[POSITIONS] = fit_positions(
                    model.shell.vit, model.spec.name, tensors[POSITIONS], where, same_grid=same
                )
            if not same:
                tensors = fit_biases(tensors, model.grid, where)
        fill(model, (head if own_head else {}) | tensors, where)
        return
    tensors = read_tensors(source, where)
    if not isinstance(model, Teacher):
        raise ModelFileError(f"{where}: expected a model folder, not a weight file. Fix: name the folder.")
    stored = find_vit(tensors, where)
    if not own_head:  # a file of this project may hold it
        head |= {name: stored.tensors.pop(name) for name in head if name in stored.tensors}
    state = convert(model.as_timm(), model.spec.name, stored)
    fill(model, head | {_from_timm(name): tensor for name, tensor in state.items()}, where)


def _vit_options(description: Mapping[str, Any]) -> dict[str, Any]:
    return dict(description["config"].get("vit", {}).get("options", {}))


def _from_timm(name: str) -> str:
    return name if name.startswith("blocks.") else f"shell.vit.{name}"
