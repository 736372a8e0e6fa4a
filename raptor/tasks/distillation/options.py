"""Options of both stages of distillation and of their losses."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from raptor.models.options import TIED
from raptor.tasks.context import Context, TaskNode
from raptor.training.options import OptimizerNode, ScheduleNode, WarmupCosineOptions
from raptor.utils.files import user_path
from raptor.utils.options import Choice, Invalid, option, options

if TYPE_CHECKING:
    from raptor.models.options import SurrogateOptions
    from raptor.tasks.distillation.floors import FloorSettings
    from raptor.tasks.distillation.losses import TokenLoss
    from raptor.tasks.distillation.task import Distillation


class LossNode(Choice):
    """A distillation loss, or a user's own by ``_target_``."""

    @abstractmethod
    def build(self) -> TokenLoss:
        """Return the loss."""


@options
class TokenMSEOptions(LossNode):
    """Mean squared error over all tokens alike."""

    identity_name: ClassVar[str] = "token_mse"

    def build(self) -> TokenLoss:
        """Return :class:`raptor.tasks.distillation.losses.TokenMSE`."""
        from raptor.tasks.distillation.losses import TokenMSE

        return TokenMSE()


@options
class WeightedTokenMSEOptions(LossNode):
    """Weighted sum of the mean squared errors of the token types; weights of absent types go to the others."""

    identity_name: ClassVar[str] = "weighted_token_mse"

    cls: float = option("Weight of the class token", ge=0)
    registers: float = option("Weight of the registers", ge=0)
    patches: float = option("Weight of the patch tokens", ge=0)

    def __post_init__(self) -> None:
        if self.cls == self.registers == self.patches == 0:
            raise Invalid("cls", self.cls, "one weight above 0 among cls, registers and patches", "set one")

    def build(self) -> TokenLoss:
        """Return :class:`raptor.tasks.distillation.losses.WeightedTokenMSE`."""
        from raptor.tasks.distillation.losses import WeightedTokenMSE

        return WeightedTokenMSE(self.cls, self.registers, self.patches)


@options
class VarianceScaledMSEOptions(WeightedTokenMSEOptions):
    """As the weighted sum, each type's error divided by the teacher's variance of that type in the batch."""

    identity_name: ClassVar[str] = "variance_scaled_mse"

    def build(self) -> TokenLoss:
        """Return :class:`raptor.tasks.distillation.losses.VarianceScaledMSE`."""
        from raptor.tasks.distillation.losses import VarianceScaledMSE

        return VarianceScaledMSE(self.cls, self.registers, self.patches)


@options
class CenteredMSEOptions(WeightedTokenMSEOptions):
    """As the weighted sum, each type's error divided by the teacher's variance about its mean over the images."""

    identity_name: ClassVar[str] = "centered_mse"

    whitening: float = option("Share of each channel's own variance in its divisor", default=0.0, ge=0, le=1)

    def build(self) -> TokenLoss:
        """Return :class:`raptor.tasks.distillation.losses.CenteredMSE`."""
        from raptor.tasks.distillation.losses import CenteredMSE

        return CenteredMSE(self.cls, self.registers, self.patches, self.whitening)


@options
class DistillationOptions(TaskNode):
    """What both stages of distillation share."""

    name: str = option("Name of the task in results", default="distillation", identity=False)
    optimizer: OptimizerNode = option("Optimiser")
    schedule: ScheduleNode | None = option("Learning-rate schedule; null keeps the rate", default=WarmupCosineOptions())
    loss: LossNode = option("Loss of one predicted layer")
    last_phase_loss: LossNode | None = option(
        "Loss of a phase that ends at the last layer; null takes loss", default=None
    )
    teacher_forcing: float = option(
        "Steps over which teacher forcing fades out; .inf never",
        default=0.0,
        unit="share of the steps",
        ge=0,
        allow_inf_nan=True,
    )
    rollout_growth: float = option(
        "Steps over which rollouts grow from one layer to all", default=0.0, unit="share of the steps", ge=0, le=1
    )
    input_noise: float = option(
        "Standard deviation of noise on tokens before every application of a block", default=0.0, ge=0
    )
    floors: bool = option("Score trivial predictions beside the students at the end", default=True, identity=False)
    floor_images: int = option("Training images for the affine floor, at most", default=1024, ge=2, identity=False)
    floor_cache: str | None = option(
        "Folder where fitted floors are kept for other runs; null keeps none", default=None, identity=False
    )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of :class:`~raptor.tasks.distillation.task.Distillation` that options alone decide."""
        return {
            "name": self.name,
            "optimizer": self.optimizer.build(),
            "schedule": None if self.schedule is None else self.schedule.build(),
            "loss": self.loss.build(),
            "last_phase_loss": None if self.last_phase_loss is None else self.last_phase_loss.build(),
            "teacher_forcing": self.teacher_forcing,
            "rollout_growth": self.rollout_growth,
            "input_noise": self.input_noise,
            "floors": self._floors(),
        }

    def _floors(self) -> FloorSettings | None:
        from raptor.tasks.distillation.floors import FloorSettings

        cache = None if self.floor_cache is None else user_path("task.floor_cache", self.floor_cache)
        return FloorSettings(self.floor_images, cache) if self.floors else None

    def __post_init__(self) -> None:
        if self.teacher_forcing != self.teacher_forcing:
            raise Invalid("teacher_forcing", self.teacher_forcing, "number >= 0", "set it to a number, or to .inf")


@options
class DistillOptions(DistillationOptions):
    """Stage 1: the block of each phase alone."""

    identity_name: ClassVar[str] = "distill"

    def build(self, context: Context) -> Distillation:
        """Build stage 1; see :func:`raptor.tasks.distillation.build.distill`."""
        from raptor.tasks.distillation.build import distill

        return distill(context, self.arguments())


@options
class FinetuneOptions(DistillationOptions):
    """Stage 2: the whole surrogate end to end."""

    identity_name: ClassVar[str] = "finetune"

    blocks: str | list[str] | None = option("Run folders of stage 1; null starts from scratch", default=None)

    def run_name(self, surrogate: SurrogateOptions) -> str:
        """Return the name of the task with the number of phases."""
        return f"{self.name}-k{surrogate.num_phases}"

    def about(self, surrogate: SurrogateOptions) -> dict[str, Any]:
        """Return the task, the number of phases, and what stands in the place of tied blocks."""
        method = {} if surrogate.label == TIED else {"method": surrogate.label}
        return {"task": self.name, "k": surrogate.num_phases, **method}

    def build(self, context: Context) -> Distillation:
        """Build stage 2; see :func:`raptor.tasks.distillation.build.finetune`."""
        from raptor.tasks.distillation.build import finetune

        folders = [self.blocks] if isinstance(self.blocks, str) else self.blocks or []
        return finetune(context, self.arguments(), folders)
