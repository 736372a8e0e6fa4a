"""Choosing the phases of a teacher: measured distance, a solver, or a file that ``raptor.phases`` wrote."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raptor.analysis.layer_distance import LayerDistance
from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.options import SurrogateOptions
from raptor.models.teacher import Teacher
from raptor.partition.files import read_phases
from raptor.partition.maxcut import Matrix, check_distance, equal_boundaries, other_boundaries, solve
from raptor.partition.phases import Phase, check_boundaries, check_k, phases_of
from raptor.utils.devices import default_device
from raptor.utils.distributed import rank
from raptor.utils.seeding import derive_seed

log = logging.getLogger(__name__)
DEFAULT_K = 2


def stream_distance(
    teacher: Teacher,
    data: ImageData,
    tokens: Sequence[str] | str,
    images: int | None,
    measure: str = "cosine",
) -> LayerDistance:
    """Sum up the distance between the layers 1..L of a teacher over training images.

    Parameters
    ----------
    teacher
        Any teacher; put into eval mode for the while.
    data
        Prepared data.
    tokens
        Token types of the distance, or ``"auto"``.
    images
        Number of training images, None for all.
    measure
        One of :data:`raptor.analysis.measures.MEASURES`.
    """
    distance = LayerDistance(teacher.layout, tokens, measure)
    with torch.no_grad():
        for x_BND in embedded_batches(teacher, data, images, "layer distances"):
            distance.update(teacher.steps(x_BND))
    return distance


def embedded_batches(teacher: Teacher, data: ImageData, images: int | None, title: str) -> Iterator[Tensor]:
    """Give layer 0 of a teacher on training images, batch by batch, on a GPU where there is one.

    Parameters
    ----------
    teacher
        Any teacher; in eval mode for the while.
    data
        Prepared data.
    images
        Number of training images, None for all.
    title
        Of the progress bar.

    Yields
    ------
    Tensor
        ``(B, N, D)``.
    """
    from raptor.utils.terminal import track

    device = default_device(rank())
    training = teacher.training
    teacher = teacher.to(device).eval()
    for batch, _ in track(data.train_images_dataloader(images), title):
        yield teacher.embed(data.normalize(batch.to(device, non_blocking=True)))
    teacher.to("cpu").train(training)


def measure_distance(teacher: Teacher, data: ImageData, tokens: Sequence[str], images: int | None) -> Matrix:
    """Measure the cosine distance between the layers 1..L of a teacher over training images.

    Parameters
    ----------
    teacher, data, tokens, images
        As for :func:`stream_distance`.

    Returns
    -------
    ndarray
        ``(L, L)`` in float64.
    """
    return check_distance(stream_distance(teacher, data, tokens, images).compute())


def choose_boundaries(
    options: SurrogateOptions, teacher: Teacher, data: ImageData, seed: int = 0
) -> tuple[list[int], str]:
    """Choose boundaries for a teacher, and say where they come from.

    Parameters
    ----------
    options, teacher, data
        How depth is cut, and what the distance is measured on.
    seed
        Of a random partition.

    Raises
    ------
    ConfigError
        If they do not fit the teacher.
    """
    L = teacher.num_layers
    if options.boundaries is not None:
        return check_boundaries(options.boundaries, L), "given"
    k = check_k(DEFAULT_K if options.k is None else options.k, L)
    if options.partition == "equal":
        return equal_boundaries(L, k), "equal"
    boundaries, solver = _best_boundaries(options, teacher, data, k)
    if options.partition == "random":
        rng = np.random.default_rng(derive_seed(seed, "partition", "random", k, 0))
        return other_boundaries(boundaries, L, rng), "random"
    return boundaries, solver


def _best_boundaries(options: SurrogateOptions, teacher: Teacher, data: ImageData, k: int) -> tuple[list[int], str]:
    """Read the boundaries of k phases from a file, or measure the distance and solve for them."""
    L = teacher.num_layers
    if options.phases_file is not None:
        phases = read_phases(Path(options.phases_file), L)
        if str(k) not in phases["boundaries"]:
            have = ", ".join(phases["boundaries"])
            expected = f"a file with a partition for surrogate.k={k} (it has k = {have})"
            fix = f"run python -m raptor.phases 'k=[{have},{k}]'"
            raise ConfigError.of("surrogate.phases_file", options.phases_file, expected, fix)
        return check_boundaries(phases["boundaries"][str(k)], L), phases["solver"]
    boundaries = solve(measure_distance(teacher, data, options.tokens, options.images), k, options.solver)
    log.info("boundaries %s of %d phases by the %s solver", boundaries, k, options.solver)
    return boundaries, options.solver


def choose_phases(options: SurrogateOptions, teacher: Teacher, data: ImageData, seed: int = 0) -> list[Phase]:
    """Choose the phases that stage 1 trains blocks for; arguments as for :func:`choose_boundaries`.

    Raises
    ------
    ConfigError
        If they do not fit the teacher.
    """
    L = teacher.num_layers
    if options.phases is None:
        return phases_of(choose_boundaries(options, teacher, data, seed)[0], L)
    if options.phases == "all":
        assert options.phases_file is not None  # checked by the options
        partitions = read_phases(Path(options.phases_file), L)["boundaries"].values()
        return sorted({phase for boundaries in partitions for phase in phases_of(boundaries, L)})
    if any(end > L for _, end in options.phases):
        expected = f"phases [start,end] with 0 <= start < end <= {L}, the layers of the teacher"
        raise ConfigError.of("surrogate.phases", options.phases, expected, "correct those beyond it")
    return [Phase(start, end) for start, end in options.phases]
