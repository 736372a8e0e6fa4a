"""Build both stages of distillation from their options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.initialization import block_config, init_from_teacher
from raptor.models.least_squares import fit_output_maps
from raptor.models.load import load_kind
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.partition.phases import Phase, phases_of
from raptor.tasks.context import Context
from raptor.tasks.distillation.phases import choose_boundaries, choose_phases
from raptor.tasks.distillation.rivals import build_rival
from raptor.tasks.distillation.task import Distillation

Made = TypeVar("Made", bound=Distillation)
log = logging.getLogger(__name__)


def distill(context: Context, arguments: dict[str, Any]) -> Distillation:
    """Build stage 1: the blocks of one phase or many, each alone.

    Parameters
    ----------
    context
        What the task is built from.
    arguments
        Of :class:`Distillation`, as its options give them.

    Raises
    ------
    ConfigError
        If phases, blocks or losses do not fit the teacher, or a rival is chosen.
    """
    if context.surrogate.rival is not None:
        fix = "set it to null, or task=finetune"
        raise ConfigError.of("surrogate.rival", context.surrogate.rival.kind, "null with task=distill", fix)
    phases = choose_phases(context.surrogate, context.teacher, context.data, context.seed)
    return build_distillation(context, arguments | {"model": new_blocks(context, phases)})


def finetune(context: Context, arguments: dict[str, Any], folders: Sequence[str]) -> Distillation:
    """Build stage 2: the whole surrogate, from trained blocks or from scratch; or a rival in its place.

    Parameters
    ----------
    context, arguments
        As for :func:`distill`.
    folders
        Run folders of stage 1; none starts from scratch.

    Raises
    ------
    ConfigError
        If boundaries, blocks or losses do not fit the teacher.
    """
    boundaries, solver = choose_boundaries(context.surrogate, context.teacher, context.data, context.seed)
    phases, about = phases_of(boundaries, context.teacher.num_layers), {"solver": solver}
    if context.surrogate.rival is not None:
        if folders:
            fix = "set it to null, or surrogate.rival to null"
            raise ConfigError.of("task.blocks", list(folders), "null: a rival has no blocks of stage 1", fix)
        model, found = build_rival(context, context.surrogate.rival, phases)
        return build_distillation(context, arguments | {"model": model, "about": about | found})
    blocks = new_blocks(context, phases)
    init: str = "scratch" if context.surrogate.init == "random" else context.surrogate.init
    if folders:
        fill_from(blocks, {folder: load_kind(folder, PhaseBlocks, "task.blocks") for folder in folders})
        init = "blocks"
    surrogate = Surrogate.of_teacher(context.teacher, blocks)
    about |= {"init": init, "label": context.surrogate.label}
    return build_distillation(context, arguments | {"model": surrogate, "about": about})


def build_distillation(context: Context, arguments: dict[str, Any], kind: type[Made] = Distillation) -> Made:  # type: ignore[assignment]
    """Build the task that trains a model, and connect its source of activations.

    Parameters
    ----------
    context
        What the task is built from.
    arguments
        Of ``kind``, without those that the context decides.
    kind
        :class:`Distillation` or a subclass.
    """
    task = kind(
        teacher=context.teacher,
        source=context.source,
        seed=context.seed,
        top1=has_teacher_classes(context.teacher, context.data),
        **arguments,
    )
    context.source.connect(context.data, context.teacher, task.layers)
    return task


def new_blocks(context: Context, phases: Sequence[Phase]) -> PhaseBlocks:
    """Make a new block for each phase, initialised as the options say."""
    blocks = PhaseBlocks(block_config(context.teacher, context.surrogate.block), phases, context.seed)
    context.teacher.hand_rope(blocks.applications())
    init = context.surrogate.init
    init_from_teacher(blocks, context.teacher, "middle" if init == "least_squares" else init)
    if init == "least_squares":
        data, teacher = context.data, freeze(context.teacher)
        log.info("surrogate.init=least_squares: fitting output maps on %d images", context.surrogate.init_images)
        fit_output_maps(
            blocks,
            teacher,
            lambda: (data.normalize(x) for x, _ in data.train_images_dataloader(context.surrogate.init_images)),
        )
    return blocks


def has_teacher_classes(teacher: Teacher, data: ImageData) -> bool:
    """Whether the labels of the data are those of the teacher's head, so that top-1 means something."""
    same = data.target == "class" and teacher.num_classes == data.num_classes
    if same and data.num_classes < 2:
        log.warning("data=%s has one class: no top-1 through the teacher's head", data.name)
        return False
    if not same:
        log.warning(
            "the teacher's head has %d outputs, data=%s has %d classes: no top-1 through the teacher's head",
            teacher.num_classes,
            data.name,
            data.num_classes,
        )
    return same


def fill_from(blocks: PhaseBlocks, sources: dict[str, PhaseBlocks]) -> None:
    """Copy the weights of trained blocks, phase by phase.

    Raises
    ------
    ConfigError
        If a phase has no trained block, or one of another architecture.
    """
    for phase in blocks.phases:
        found = next((folder for folder, source in sources.items() if phase in source.phases), None)
        if found is None:
            have = ", ".join(sorted({str(p) for source in sources.values() for p in source.phases}))
            fix = f"train it with task=distill 'surrogate.phases=[[{phase.start},{phase.end}]]'"
            raise ConfigError.of("task.blocks", list(sources), f"a block for phase {phase} (they have {have})", fix)
        if sources[found].config != blocks.config:
            expected = f"blocks as surrogate.block describes, {blocks.config.to_dict()}"
            fix = f"set surrogate.block to what they were trained with, {sources[found].config.to_dict()}"
            raise ConfigError.of("task.blocks", found, expected, fix)
        blocks.of(phase).load_state_dict(sources[found].of(phase).state_dict())
