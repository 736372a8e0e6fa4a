"""Build the small-scale study's task from its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raptor.errors import ConfigError
from raptor.models.initialization import block_config
from raptor.models.io import state_fingerprint
from raptor.models.tied import PartitionEnsemble
from raptor.partition.maxcut import exact
from raptor.partition.phases import label_layers
from raptor.studies.small_scale.partitions import check_partitions
from raptor.studies.small_scale.partitions import partitions as draw_partitions
from raptor.studies.small_scale.swaps import draw_swaps
from raptor.studies.small_scale.task import Partitions
from raptor.tasks.context import Context
from raptor.tasks.distillation.build import build_distillation
from raptor.tasks.distillation.phases import measure_distance
from raptor.utils.seeding import derive_seed


def partitions(
    context: Context,
    arguments: dict[str, Any],
    ks: Sequence[int],
    kinds: Sequence[str],
    draws: int,
    swaps: int,
) -> Partitions:
    """Build surrogates of one teacher under many partitions, from scratch.

    Draws depend on the seed and on the teacher's weights, so that teachers of equal seed do not share them; initial
    blocks depend on the seed alone.

    Parameters
    ----------
    context
        What the task is built from.
    arguments
        Of :class:`Partitions`, as its options give them.
    ks, kinds, draws
        Numbers of blocks, kinds of partition, and random ones of each.
    swaps
        Layer swaps of the teacher for each k, side and size.

    Raises
    ------
    ConfigError
        If depth is cut in advance, or a partition does not fit the teacher.
    """
    surrogate, teacher = context.surrogate, context.teacher
    for key, value in surrogate.given.items():
        fix = f"set surrogate.{key} to null; task.ks lists the numbers of blocks"
        raise ConfigError.of(f"surrogate.{key}", value, "null: task=partitions cuts by itself", fix)
    if surrogate.init != "random":
        raise ConfigError.of("surrogate.init", surrogate.init, "random with task=partitions", "set it to random")
    drawn_by = derive_seed(context.seed, state_fingerprint(teacher))
    check_partitions(ks, kinds, draws, teacher.num_layers)
    distance = measure_distance(teacher, context.data, surrogate.tokens, surrogate.images)
    drawn = draw_partitions(distance, ks, kinds, draws, drawn_by)
    best = {k: label_layers(exact(distance, k), teacher.num_layers) for k in ks}
    model = PartitionEnsemble(block_config(teacher, surrogate.block), {p.name: p.labels for p in drawn}, context.seed)
    teacher.hand_rope(model.applications())
    measured = {"best": best, "distance": distance, "swaps": draw_swaps(best, swaps, drawn_by)}
    return build_distillation(context, arguments | measured | {"model": model, "partitions": drawn}, Partitions)
