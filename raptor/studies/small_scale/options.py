"""Options of the small-scale study's task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raptor.tasks.context import Context
from raptor.tasks.distillation.options import DistillationOptions
from raptor.utils.options import Invalid, option, options

if TYPE_CHECKING:
    from raptor.studies.small_scale.task import Partitions


@options
class PartitionsOptions(DistillationOptions):
    """Surrogates of one teacher under many partitions, end to end from scratch."""

    identity_name: ClassVar[str] = "partitions"

    ks: list[int] = option("Numbers of blocks", default=[1, 2, 3, 4], min_length=1)
    kinds: list[Literal["maxcut", "equal", "random", "shuffled"]] = option(
        "Partitions: max-cut, equal sizes, random contiguous, the max-cut's labels shuffled over layers",
        default=["maxcut", "random", "shuffled"],
        min_length=1,
    )
    draws: int = option("Random and shuffled partitions for each k", default=1, ge=1)
    swaps: int = option("Layer swaps of the teacher for each k, side and size; 0: none", default=8, ge=0)
    tags: dict[str, Any] = option(
        "Kept with the results, for reports to group by", default={}, identity=False, open=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.ks) < 1:
            raise Invalid("ks", self.ks, "integers >= 1", "remove the others")

    def build(self, context: Context) -> Partitions:
        """Build the task; see :func:`raptor.studies.small_scale.build.partitions`."""
        from raptor.studies.small_scale.build import partitions

        arguments = self.arguments() | {"tags": self.tags}
        return partitions(context, arguments, self.ks, self.kinds, self.draws, self.swaps)
