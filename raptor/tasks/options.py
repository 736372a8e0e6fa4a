"""Options of the training of a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raptor.tasks.context import Context, TaskNode, check_classes, check_reads_images
from raptor.training.options import OptimizerNode, ScheduleNode
from raptor.utils.options import option, options

if TYPE_CHECKING:
    from raptor.tasks.classifier import Classifier


@options
class ClassifierOptions(TaskNode):
    """Train the teacher itself to classify."""

    identity_name: ClassVar[str] = "classifier"

    name: str = option("Name of the task in results", default="classifier", identity=False)
    optimizer: OptimizerNode = option("Optimiser")
    schedule: ScheduleNode | None = option("Learning-rate schedule; null keeps the rate", default=None)
    label_smoothing: float = option("Share of the target that is spread over all classes", default=0.0, ge=0, le=1)

    def build(self, context: Context) -> Classifier:
        """Build the training of the teacher."""
        from raptor.tasks.classifier import Classifier

        check_reads_images(context, self.name)
        check_classes(context.data, self.name)
        return Classifier(
            name=self.name,
            optimizer=self.optimizer.build(),
            schedule=None if self.schedule is None else self.schedule.build(),
            seed=context.seed,
            teacher=context.teacher,
            data=context.data,
            label_smoothing=self.label_smoothing,
        )
