"""What training asks of a task, so that it need not know any."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol


class Trainable(Protocol):
    """A task as trainer and callbacks see it, beside what Lightning asks of a module.

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
