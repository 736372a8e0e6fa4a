"""Loggers that follow a run folder over its attempts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from raptor.utils.files import read_json, write_json, write_text


class ResumableWandb(WandbLogger):
    """Weights & Biases under an id that depends on the run folder alone, with each step of the training once.

    wandb's own process keeps rows in memory for a while, and SLURM kills it together with the job. So rows go to a
    journal in the run folder when the state of the training is saved, and from there to wandb: at once where it is
    online, which then knows how far it got, and at the end of the attempt where it is offline. What a killed job did
    not hand over, the next attempt does; what it did not save, the next attempt logs again, and only that counts.

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
        self._journal, self._mark = path / "wandb" / "journal.jsonl", path / "wandb" / "handed_over.json"
        self._live = not kwargs.get("offline", False)
        self._rows: list[dict[str, Any]] | None = None  # of the journal
        self._held: list[dict[str, Any]] = []
        self._handed = self._saved = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hold a row until :meth:`commit`; Lightning logs the last saved step only after it was saved."""
        if self._rows is None:
            self._open(step or 0)
        self._held.append({**metrics, "trainer/global_step": step})
        if step is not None and step < self._saved:
            self._write_down()

    def _open(self, step: int) -> None:
        lines = self._journal.read_text().splitlines(keepends=True) if self._journal.is_file() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        self._rows = [row for row in rows if row["trainer/global_step"] < step]  # this attempt logs the others again
        if len(self._rows) < len(lines):
            write_text(self._journal, "".join(json.dumps(row) + "\n" for row in self._rows))
        self._handed = (read_json(self._mark) or {}).get("rows", 0)
        if self._live:  # a run that goes on knows its next step
            next_step = self.experiment.step
            self._handed = sum(row["trainer/global_step"] < next_step for row in self._rows)

    @rank_zero_only
    def commit(self, saved: int) -> None:
        """Write down what is held; to be called just before the state after ``saved`` steps is saved."""
        self._saved = saved
        self._write_down()

    def _write_down(self) -> None:
        if not self._held:
            return
        assert self._rows is not None
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._held)
            file.flush()
            os.fsync(file.fileno())
        self._rows += self._held
        self._held = []
        if self._live:
            self._hand_over()

    def _hand_over(self) -> None:
        assert self._rows is not None
        for row in self._rows[self._handed :]:
            self.experiment.log(row, step=row["trainer/global_step"])
        self._handed = len(self._rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Hand over what is written down, and end the run; what was held counts only if the training ended well."""
        if status == "success":
            self._write_down()
        if self._rows is not None and self._handed < len(self._rows):
            self._hand_over()
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            write_json(self._mark, {"rows": self._handed})


def commit(loggers: Iterable[Any], saved: int) -> None:
    """Tell loggers that the state of the training after ``saved`` steps is about to be saved."""
    for logger in loggers:
        if isinstance(logger, ResumableWandb):
            logger.commit(saved)


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
