"""From config nodes to tasks: the ``_target_`` of each file in ``configs/task``.

Every builder takes the same things beside its own options: the teacher, the prepared data, the source of
activations, the ``surrogate`` options and the seed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raptor.data.module import ImageData
from raptor.data.sources import ActivationSource, Online
from raptor.errors import ConfigError, from_node
from raptor.models.backbone import Backbone
from raptor.models.block import BlockConfig
from raptor.models.initialization import inherit
from raptor.models.load import load
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase, phases_of
from raptor.tasks.classifier import Classifier
from raptor.tasks.distillation.phases import SurrogateOptions, choose_boundaries, choose_phases
from raptor.tasks.distillation.task import Distillation
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.depth import DepthProbing
from raptor.tasks.probes.linear import LinearProbing
from raptor.tasks.probes.segmentation import SegmentationProbing

log = logging.getLogger(__name__)


def classifier(
    *, teacher: Teacher, data: ImageData, source: ActivationSource, surrogate: SurrogateOptions, **kwargs: Any
) -> Classifier:
    """Train the teacher itself."""
    _check_reads_images(source, "classifier")
    return Classifier(teacher=teacher, data=data, **kwargs)


def distill(
    *,
    teacher: Teacher,
    data: ImageData,
    source: ActivationSource,
    surrogate: SurrogateOptions,
    seed: int,
    **kwargs: Any,
) -> Distillation:
    """Stage 1: the blocks of one phase or many."""
    blocks = _new_blocks(teacher, surrogate, choose_phases(surrogate, teacher, data), seed)
    return _distillation(data, source, teacher=teacher, model=blocks, seed=seed, **kwargs)


def finetune(
    *,
    teacher: Teacher,
    data: ImageData,
    source: ActivationSource,
    surrogate: SurrogateOptions,
    seed: int,
    blocks: str | Sequence[str] | None = None,
    **kwargs: Any,
) -> Distillation:
    """Stage 2: the whole surrogate, from trained blocks or from scratch."""
    boundaries, solver = choose_boundaries(surrogate, teacher, data)
    model = _new_blocks(teacher, surrogate, phases_of(boundaries, teacher.num_layers), seed)
    if blocks is not None:
        folders = [blocks] if isinstance(blocks, str) else list(blocks)
        _fill_from(model, {folder: _load(folder, PhaseBlocks, "task.blocks") for folder in folders})
    about = {
        "solver": solver,
        "init": "blocks" if blocks is not None else "scratch" if surrogate.start == "random" else surrogate.start,
    }
    whole = Surrogate.of_teacher(teacher, model)
    return _distillation(data, source, teacher=teacher, model=whole, seed=seed, about=about, **kwargs)


def probe(
    kind: type[Probe],
    *,
    teacher: Teacher,
    data: ImageData,
    source: ActivationSource,
    surrogate: SurrogateOptions,
    backbone: str | None = None,
    label: str | None = None,
    **kwargs: Any,
) -> Probe:
    """A probe on the teacher, or on the model in the folder ``backbone``; ``label`` names it in tables.

    A surrogate that was made at another image size is opened at the teacher's.
    """
    _check_reads_images(source, kwargs["name"])
    model = teacher if backbone is None else _load(backbone, Backbone, "task.backbone")
    if label is None:
        label = f"k={model.k}" if isinstance(model, Surrogate) else "teacher" if teacher.trained else "untrained"
    probed = {"label": label, "folder": backbone}
    ours, theirs = ((m.input_shape, m.spec.mean, m.spec.std) for m in (model, teacher))
    if ours != theirs and isinstance(model, Surrogate):
        model = model.opened_as(teacher)
    elif ours != theirs:
        raise ConfigError(
            f"task.backbone={backbone} takes images (shape, mean, std) {ours}, the data was prepared for the teacher's "
            f"{theirs}: choose its own teacher"
        )
    return kind(backbone=model, data=data, source=probed, **kwargs)


def linear_probe(**kwargs: Any) -> Probe:
    """Classes of images; see :func:`probe`."""
    return probe(LinearProbing, **kwargs)


def segmentation_probe(**kwargs: Any) -> Probe:
    """Classes of pixels; see :func:`probe`."""
    return probe(SegmentationProbing, **kwargs)


def depth_probe(**kwargs: Any) -> Probe:
    """Depth of pixels; see :func:`probe`."""
    return probe(DepthProbing, **kwargs)


def _distillation(data: ImageData, source: ActivationSource, teacher: Teacher, **kwargs: Any) -> Distillation:
    task = Distillation(teacher=teacher, top1=has_top1(teacher, data), source=source, **kwargs)
    source.connect(data, teacher, task.layers)
    return task


def _check_reads_images(source: ActivationSource, task: str) -> None:
    if not isinstance(source, Online):
        raise ConfigError(f"task={task} reads images, no stored activations: set activations=online")


def block_config(teacher: Teacher, options: SurrogateOptions) -> BlockConfig:
    """Options of a block that follows a teacher: of its width, and with as many heads unless told otherwise."""
    block = {
        "num_heads": teacher.num_heads,
        **{k: v for k, v in options.block.items() if k != "num_heads" or v},
    }
    return from_node(BlockConfig, {"width": teacher.width, **block}, "surrogate.block")


def _new_blocks(teacher: Teacher, options: SurrogateOptions, phases: Sequence[Phase], seed: int) -> PhaseBlocks:
    blocks = PhaseBlocks(block_config(teacher, options), phases, seed)
    inherit(blocks, teacher, options.start)
    return blocks


def _load(folder: str, kind: type, key: str) -> Any:
    if not Path(folder).exists():
        raise ConfigError(f"{key}={folder} does not exist: finish the run that makes it first")
    model = load(folder)
    if not isinstance(model, kind):
        raise ConfigError(f"{key}={folder} holds a {type(model).__name__}, a {kind.__name__} is needed")
    return model


def has_top1(teacher: Teacher, data: ImageData) -> bool:
    """Whether the teacher's head tells the classes of the data."""
    same = data.target == "class" and teacher.num_classes == data.num_classes
    if not same:
        log.warning(
            "the teacher's head has %d outputs, data=%s has %d classes: no top-1 through the teacher's head",
            teacher.num_classes,
            data.name,
            data.num_classes,
        )
    return same


def _fill_from(blocks: PhaseBlocks, sources: dict[str, PhaseBlocks]) -> None:
    for phase in blocks.phases:
        found = next((folder for folder, source in sources.items() if phase in source.phases), None)
        if found is None:
            have = sorted({str(p) for source in sources.values() for p in source.phases})
            raise ConfigError(
                f"task.blocks={list(sources)} hold no block for phase {phase}, only for {', '.join(have)}; train it "
                f"with task=distill 'surrogate.phases=[[{phase.start},{phase.end}]]'"
            )
        if sources[found].config != blocks.config:
            raise ConfigError(
                f"task.blocks={found} was trained with block options {sources[found].config.to_dict()}, but "
                f"surrogate.block asks for {blocks.config.to_dict()}"
            )
        blocks.of(phase).load_state_dict(sources[found].of(phase).state_dict())
