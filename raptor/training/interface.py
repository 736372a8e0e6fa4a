"""The interface of a task to the training, so that training imports no task."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol


class Trainable(Protocol):
    """A task as trainer and callbacks see it, beside the methods of a LightningModule.

    Attributes
    ----------
    name
        Name of the task, for results.
    one_process
        Whether the task cannot run in several processes.
    """

    name: str
    one_process: ClassVar[bool]

    def export(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the model that the task makes."""
