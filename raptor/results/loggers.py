"""Loggers that follow a run folder over its attempts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger


class ResumableWandb(WandbLogger):
    """Weights & Biases under an id that depends on the run folder alone, each step of the training once.

    What is logged is handed over when the state of the training is saved: steps that are lost when a job is killed
    were never reported, and those that a continued job repeats are not reported twice.

    Parameters
    ----------
    save_dir
        Run folder.
    **kwargs
        Of Lightning's ``WandbLogger``.
    """

    def __init__(self, save_dir: str, **kwargs: Any) -> None:
        path = Path(save_dir)
        stable = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
        super().__init__(save_dir=save_dir, id=stable, name=path.name, resume="allow", **kwargs)
        self._held: list[tuple[dict[str, float], int | None]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hold metrics until :meth:`commit`."""
        self._held.append((dict(metrics), step))

    def commit(self) -> None:
        """Hand over what is held."""
        for metrics, step in self._held:
            self.experiment.log({**metrics, "trainer/global_step": step}, step=step)
        self._held.clear()

    def finalize(self, status: str) -> None:
        """End the run; what was held counts only if the training ended well."""
        if status == "success":
            self.commit()
        super().finalize(status)


def commit(loggers: Iterable[Any]) -> None:
    """Tell loggers that the state of the training is saved."""
    for logger in loggers:
        if isinstance(logger, ResumableWandb):
            logger.commit()


def finish(loggers: Iterable[Any], status: str) -> None:
    """Close all loggers in any outcome; without it the next job of a sweep would write into the same wandb run.

    Parameters
    ----------
    loggers
        Lightning loggers.
    status
        ``"success"`` or ``"failed"``.
    """
    for logger in loggers:
        logger.finalize(status)
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish(exit_code=0 if status == "success" else 1)
