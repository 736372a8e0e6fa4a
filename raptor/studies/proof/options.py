"""Options of the task that reads off each layer of a frozen network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raptor.tasks.context import Context, TaskNode
from raptor.utils.options import option, options

if TYPE_CHECKING:
    from raptor.studies.proof.task import Readout


@options
class ReadoutOptions(TaskNode):
    """Accuracy in closed form at every layer, neighbours and colour maps beside the teacher's; trains nothing."""

    identity_name: ClassVar[str] = "readout"

    name: str = option("Name of the task in results", default="readout", identity=False)
    backbone: str | None = option("Run folder of a surrogate, rival or teacher; null: the teacher", default=None)
    label: str | None = option("Row of the table; null: k=..., teacher or untrained", default=None, identity=False)
    images: int = option("Training images that the probes are fitted on, at most", default=2000, unit="images", ge=2)
    neighbours: int = option("Nearest neighbours that are compared with the teacher's", default=10, ge=1)
    maps: bool = option("Keep colour maps of the patches of two photographs that scikit-learn ships", default=False)

    def build(self, context: Context) -> Readout:
        """Build :class:`raptor.studies.proof.task.Readout`."""
        from raptor.studies.proof.task import build_readout

        arguments = {"images": self.images, "neighbours": self.neighbours, "maps": self.maps}
        return build_readout(context, self.backbone, self.label, {"name": self.name, **arguments})
