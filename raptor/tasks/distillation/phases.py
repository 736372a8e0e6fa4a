"""Choosing the phases of a teacher: measured distance, a solver, or a file that ``raptor.phases`` wrote."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from raptor.analysis.layer_distance import DEFAULT_TYPES, LayerDistance
from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.teacher import Teacher
from raptor.partition.files import read_phases
from raptor.partition.maxcut import SOLVERS, Matrix, check_distance, solve
from raptor.partition.phases import Phase, check_boundaries, check_k, phases_of
from raptor.utils.distributed import rank

log = logging.getLogger(__name__)
DEFAULT_K = 2


@dataclass
class SurrogateOptions:
    """The ``surrogate`` config node: how depth is cut, and what a block is.

    Parameters
    ----------
    k
        Number of phases.
    boundaries
        The boundaries themselves; then ``k`` is not needed.
    phases
        Stage 1 only: the phases to train blocks for, as ``[[start, end], ...]``, or ``"all"`` for those of
        every partition in ``phases_file``. None takes those of the boundaries.
    phases_file
        A ``phases.json`` to take the boundaries of k phases from.
    solver, tokens, images
        Where there is no file: the solver, the token types of the distance, and the number of training images.
    start
        What new blocks begin as: see :func:`~raptor.models.initialization.inherit`.
    block
        Options of the block: see :class:`~raptor.models.block.BlockConfig`.
    """

    k: int | None = None
    boundaries: list[int] | None = None
    phases: Any = None
    phases_file: str | None = None
    solver: str = "exact"
    tokens: Sequence[str] = DEFAULT_TYPES
    images: int = 2000
    start: str = "random"
    block: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ConfigError(f"surrogate.solver={self.solver!r} is unknown; choose {' or '.join(SOLVERS)}")
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1 or not self.tokens:
            raise ConfigError(
                f"surrogate.images={self.images} starts at 1, surrogate.tokens={self.tokens} needs a type"
            )
        if self.boundaries is not None and not isinstance(self.boundaries, list):
            raise ConfigError(f"surrogate.boundaries={self.boundaries} must be a list, such as [7] or [7,10]")
        if self.boundaries is not None and self.k is not None and len(self.boundaries) + 1 != self.k:
            raise ConfigError(
                f"surrogate.boundaries={self.boundaries} make {len(self.boundaries) + 1} phases, but "
                f"surrogate.k={self.k}: set one of them to null"
            )


def measure_distance(teacher: Teacher, data: ImageData, tokens: Sequence[str], images: int | None) -> Matrix:
    """Distance between the layers 1..L of a teacher over training images.

    Parameters
    ----------
    teacher
        Any teacher; put into eval mode for the while.
    data
        Prepared data.
    tokens
        Token types of the distance.
    images
        Number of training images, None for all.

    Returns
    -------
    ndarray
        ``(L, L)`` in float64.
    """
    from rich.progress import track

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", rank() % torch.cuda.device_count())
    training = teacher.training
    teacher = teacher.to(device).eval()
    distance = LayerDistance(teacher.layout, tokens)
    with torch.no_grad():
        for batch, _ in track(data.train_images_dataloader(images), "layer distances", transient=True):
            x = teacher.embed(data.normalize(batch.to(device, non_blocking=True)))
            distance.update(teacher.layers(x))
    teacher.to("cpu").train(training)
    return check_distance(distance.compute())


def choose_boundaries(options: SurrogateOptions, teacher: Teacher, data: ImageData) -> tuple[list[int], str]:
    """Boundaries for a teacher, and where they come from.

    Raises
    ------
    ConfigError
        If they do not fit the teacher.
    """
    L = teacher.num_layers
    if options.boundaries is not None:
        return check_boundaries(options.boundaries, L), "given"
    k = check_k(DEFAULT_K if options.k is None else options.k, L)
    if options.phases_file is not None:
        phases = read_phases(Path(options.phases_file), L)
        if str(k) not in phases["boundaries"]:
            have = ", ".join(phases["boundaries"])
            raise ConfigError(
                f"surrogate.phases_file={options.phases_file} has no partition for surrogate.k={k}, only for k = "
                f"{have}: run python -m raptor.phases k=[{have},{k}]"
            )
        return check_boundaries(phases["boundaries"][str(k)], L), phases["solver"]
    boundaries = solve(measure_distance(teacher, data, options.tokens, options.images), k, options.solver)
    log.info("boundaries %s of %d phases by the %s solver", boundaries, k, options.solver)
    return boundaries, options.solver


def choose_phases(options: SurrogateOptions, teacher: Teacher, data: ImageData) -> list[Phase]:
    """Phases that stage 1 trains blocks for.

    Raises
    ------
    ConfigError
        If they do not fit the teacher.
    """
    L = teacher.num_layers
    if options.phases is None:
        return phases_of(choose_boundaries(options, teacher, data)[0], L)
    if options.phases == "all":
        if options.phases_file is None:
            raise ConfigError("surrogate.phases=all takes the phases of a file: set surrogate.phases_file")
        partitions = read_phases(Path(options.phases_file), L)["boundaries"].values()
        return sorted({phase for boundaries in partitions for phase in phases_of(boundaries, L)})
    try:
        phases = [Phase(int(start), int(end)) for start, end in options.phases]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"surrogate.phases={options.phases} must be all or like [[0,7],[7,10]]") from error
    for phase in phases:
        if not 0 <= phase.start < phase.end <= L:
            raise ConfigError(
                f"surrogate.phases: {list(phase)} does not fit a teacher of {L} layers (0 <= start < end)"
            )
    return phases
