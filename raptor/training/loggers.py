"""Options of the loggers: ``logger=csv|tensorboard|wandb``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from raptor.training.options import LoggerNode
from raptor.utils.options import Invalid, option, options

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    MakeLogger = Callable[..., Logger]

FORBIDDEN = set("/\\#?%:")  # in the name of a project on a server of Weights & Biases


@options
class CurvesOptions(LoggerNode):
    """Metrics by step in ``metrics/metrics.jsonl``, and ``metrics.csv`` when an attempt ends."""

    def build(self) -> MakeLogger:
        """Return :class:`raptor.training.curves.Curves`, to be called with ``save_dir``."""
        from raptor.training.curves import Curves

        return Curves


@options
class TensorBoardOptions(LoggerNode):
    """TensorBoard's event files in ``tensorboard/``."""

    def build(self) -> MakeLogger:
        """Return Lightning's logger, to be called with ``save_dir``."""
        from pytorch_lightning.loggers import TensorBoardLogger

        return partial(TensorBoardLogger, name="tensorboard", version="")


@options
class WandbOptions(LoggerNode):
    """Weights & Biases, one run for each run folder."""

    project: str = option("Project", default="raptor")
    entity: str | None = option("User or team; null is the default of the key", default=None)
    offline: bool = option("Write runs to wandb/ in the run folder, for wandb sync", default=True)
    group: str | int | float | None = option("Group of runs", default=None)
    job_type: str | None = option("Type of the run within its group", default=None)
    tags: list[str] = option("Tags", default=[])
    settings: dict[str, Any] = option("Further arguments of wandb.init", default={}, open=True)

    def __post_init__(self) -> None:
        if not self.project or FORBIDDEN & set(self.project) or len(self.project) > 128:
            name = self.project.rpartition("/")[2] or "raptor"
            expected = "a name of at most 128 characters without any of " + " ".join(sorted(FORBIDDEN))
            fix = f"write logger.wandb.project={name}, and a team as logger.wandb.entity"
            raise Invalid("project", self.project, expected, fix)

    def build(self) -> MakeLogger:
        """Return :class:`raptor.training.weights_and_biases.ResumableWandb`, to be called with ``save_dir``."""
        from raptor.training.weights_and_biases import ResumableWandb

        given: dict[str, Any] = {
            "project": self.project,
            "offline": self.offline,
            "job_type": self.job_type,
            **self.settings,
        }
        given |= {"entity": self.entity} if self.entity else {}
        given |= {"group": str(self.group)} if self.group is not None else {}
        given |= {"tags": self.tags} if self.tags else {}
        return partial(ResumableWandb, **given)
