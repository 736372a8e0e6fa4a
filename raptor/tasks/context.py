"""What every task is built from."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raptor.errors import ConfigError
from raptor.utils.options import Choice

if TYPE_CHECKING:
    from raptor.data.module import ImageData
    from raptor.data.sources import ActivationSource
    from raptor.models.options import SurrogateOptions
    from raptor.models.teacher import Teacher
    from raptor.tasks.base import Task


@dataclass(frozen=True)
class Context:
    """Parts of a training that stand beside the task in the configuration, built.

    Parameters
    ----------
    teacher
        The teacher.
    data
        The data, prepared for the teacher's input.
    source
        Where training takes the teacher's layers from.
    surrogate
        How depth is cut, and what a block is.
    seed
        Seed of the run.
    """

    teacher: Teacher
    data: ImageData
    source: ActivationSource
    surrogate: SurrogateOptions
    seed: int


class TaskNode(Choice):
    """A task: ``task=finetune|distill|linear_probe|...``, or a user's own by ``_target_``."""

    name: str

    def run_name(self, surrogate: SurrogateOptions) -> str:
        """Return the beginning of a run folder's name."""
        return self.name

    def about(self, surrogate: SurrogateOptions) -> dict[str, Any]:
        """Return what the table of :mod:`raptor.status` shows of a run."""
        return {"task": self.name}

    @abstractmethod
    def build(self, context: Context) -> Task:
        """Build the task.

        Raises
        ------
        ConfigError
            If it does not fit the teacher or the data.
        """


def check_reads_images(context: Context, task: str) -> None:
    """Refuse stored activations for a task that reads images.

    Raises
    ------
    ConfigError
        If the source is a store.
    """
    if not context.source.reads_images:
        raise ConfigError.of("activations", "cached", f"online: task={task} reads images", "set activations=online")


def check_classes(data: ImageData, task: str) -> None:
    """Refuse data of fewer than two classes for a task that tells classes apart.

    Raises
    ------
    ConfigError
        If there are fewer.
    """
    if data.num_classes < 2:
        expected = f"data of two classes or more for task={task}, it has {data.num_classes}"
        raise ConfigError.of("data", data.name, expected, "add a class; distillation needs none")
