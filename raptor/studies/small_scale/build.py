"""From config node to task: the ``_target_`` of ``configs/task/partitions.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raptor.data.module import ImageData
from raptor.data.sources import ActivationSource
from raptor.errors import ConfigError
from raptor.models.io import state_fingerprint
from raptor.models.teacher import Teacher
from raptor.models.tied import TiedSet
from raptor.partition.maxcut import exact
from raptor.partition.phases import label_layers
from raptor.studies.small_scale.partitions import KINDS, check_partitions
from raptor.studies.small_scale.partitions import partitions as draw_partitions
from raptor.studies.small_scale.swaps import draw_swaps
from raptor.studies.small_scale.task import Partitions
from raptor.tasks.build import block_config, has_top1
from raptor.tasks.distillation.phases import SurrogateOptions, measure_distance
from raptor.utils.seeding import derive_seed


def partitions(
    *,
    teacher: Teacher,
    data: ImageData,
    source: ActivationSource,
    surrogate: SurrogateOptions,
    seed: int,
    ks: Sequence[int],
    kinds: Sequence[str] = KINDS,
    draws: int = 1,
    swaps: int = 0,
    **kwargs: Any,
) -> Partitions:
    """The small-scale study: surrogates of one teacher under many partitions, from scratch.

    Draws depend on the seed and on the teacher's weights, so that teachers of equal seed do not share them; initial
    blocks depend on the seed alone.
    """
    for key in ("k", "boundaries", "phases", "phases_file"):
        value = getattr(surrogate, key)
        if value is not None:
            raise ConfigError(f"surrogate.{key}={value}: task=partitions cuts by itself; set it to null, see task.ks")
    if surrogate.start != "random":
        raise ConfigError(f"surrogate.start={surrogate.start}: task=partitions begins at random, set it to random")
    drawn_by = derive_seed(seed, state_fingerprint(teacher))
    check_partitions(ks, kinds, draws, teacher.num_layers)
    distance = measure_distance(teacher, data, surrogate.tokens, surrogate.images)
    found = draw_partitions(distance, ks, kinds, draws, drawn_by)
    best = {k: label_layers(exact(distance, k), teacher.num_layers) for k in ks}
    task = Partitions(
        teacher=teacher,
        model=TiedSet(block_config(teacher, surrogate), {p.name: p.labels for p in found}, seed),
        partitions=found,
        best=best,
        distance=distance,
        swaps=draw_swaps(best, swaps, drawn_by),
        seed=seed,
        top1=has_top1(teacher, data),
        source=source,
        **kwargs,
    )
    source.connect(data, teacher, task.layers)
    return task
