"""Curves of a training: metrics by step, written before the state of the training that follows from them."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from raptor.runs.history import JOURNAL, METRICS, STEP, read_rows
from raptor.utils.files import sync, write_json, write_text

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Journal:
    """Rows of metrics in a file, one JSON object for each line, in the order of logging.

    Parameters
    ----------
    path
        The file.
    key
        Name of the step in a row.
    """

    def __init__(self, path: Path, key: str = STEP) -> None:
        self.path, self.key = path, key

    def rows(self) -> list[Row]:
        """Read all whole rows."""
        return read_rows(self.path)

    def cut(self, step: int) -> list[Row]:
        """Drop the rows of steps that this attempt repeats, and return those that stay.

        Parameters
        ----------
        step
            First step of the attempt.
        """
        kept = [row for row in self.rows() if row[self.key] < step]
        text = "".join(_line(row) for row in kept)
        if self.path.is_file() and self.path.read_text(encoding="utf-8") != text:
            write_text(self.path, text)
        return kept

    def append(self, rows: Iterable[Row], *, durable: bool = False) -> None:
        """Write rows, and wait for the disk if they must survive a crash of the machine.

        Raises
        ------
        OSError
            Naming the file.
        """
        text = "".join(_line(row) for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        if durable:
            sync(self.path.parent)


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


class RunLogger(Logger):
    """A logger with hooks for the begin of an attempt, and for the moment before the training is saved."""

    def begin(self, step: int) -> None:
        """Prepare for an attempt that begins at a step.

        Raises
        ------
        ConfigError
            If the logger cannot work; nothing is trained then.
        """

    def commit(self, row: Row | None) -> None:
        """Write down all rows, before the state of the training is saved.

        Parameters
        ----------
        row
            Metrics of the last step, which Lightning logs again after the state was saved; None if it will not.
        """


class Curves(RunLogger):
    """Metrics in ``metrics/metrics.jsonl`` of a run folder, and as ``metrics.csv`` when an attempt ends.

    Parameters
    ----------
    save_dir
        Run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._journal = Journal(self._folder / METRICS / JOURNAL)
        self._early: Row | None = None  # written by commit, and expected from Lightning again

    @property
    def name(self) -> str:
        """Name of the folder of metrics."""
        return METRICS

    @property
    def version(self) -> str:
        """Nothing: all attempts of a run share the files."""
        return ""

    @property
    def save_dir(self) -> str:
        """Run folder."""
        return str(self._folder)

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Drop what an earlier attempt logged of steps that are repeated now."""
        self._journal.cut(step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = _row(metrics, step)
        if row != self._early:
            self._journal.append([row])
        self._early = None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write the flat configuration to ``metrics/hparams.json``."""
        folder = self._folder / METRICS
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "hparams.json", dict(params))

    @rank_zero_only
    def commit(self, row: Row | None) -> None:
        """Bring all rows to the disk."""
        self._early = row
        self._journal.append([] if row is None else [row], durable=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the curves as a table in CSV."""
        rows = self._journal.rows()
        if rows:
            write_text(self._folder / METRICS / "metrics.csv", _table(rows))


def _row(metrics: Mapping[str, float], step: int | None) -> Row:
    values = {name: value for name, value in metrics.items() if name != "epoch"}  # the steps are all in one epoch
    return {STEP: step, **values}


def _table(rows: list[Row]) -> str:
    merged: dict[int, Row] = {}
    for row in rows:
        merged.setdefault(row[STEP], {}).update(row)
    names = sorted({name for row in rows for name in row} - {STEP})
    text = io.StringIO()
    writer = csv.DictWriter(text, [STEP, *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(merged[step] for step in sorted(merged))
    return text.getvalue()


def pending_row(trainer: Trainer) -> Row | None:
    """Return the metrics of a step that Lightning logs only after the callbacks at its end; None if it will not."""
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return None
    metrics = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {STEP: trainer.fit_loop.epoch_loop._batches_that_stepped, **metrics}


def begin(loggers: Iterable[Any], step: int) -> None:
    """Prepare loggers for an attempt that begins at a step; see :meth:`RunLogger.begin`."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.begin(step)


def commit(loggers: Iterable[Any], row: Row | None) -> None:
    """Have loggers write down all rows before the state is saved; see :meth:`RunLogger.commit`."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.commit(row)


def finish(loggers: Iterable[Any], status: str) -> None:
    """Close all loggers; one that cannot be closed must not hide how the training ended.

    Parameters
    ----------
    loggers
        Lightning loggers.
    status
        ``"success"`` or ``"failed"``.
    """
    for logger in loggers:
        try:
            logger.finalize(status)
        except Exception as error:  # of a disk, a server or a library
            log.warning("%s could not be closed: %s", type(logger).__name__, error)
