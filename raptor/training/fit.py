"""One training from its first or next step to the last, and the validation of what came out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from raptor.errors import ConfigError
from raptor.training.checkpoints import CHECKPOINT
from raptor.training.curves import finish

log = logging.getLogger(__name__)


def fit(trainer: pl.Trainer, task: Any, data: Any, hyperparameters: Mapping[str, Any]) -> dict[str, float]:
    """Train from the checkpoint in the run folder, if there is one, and validate.

    Parameters
    ----------
    trainer
        Bound to the run folder.
    task
        The Lightning module.
    data
        Its data module.
    hyperparameters
        Flat configuration for the loggers.

    Returns
    -------
    dict
        Metrics of the last validation, which the loggers get as a row at the last step.

    Raises
    ------
    ConfigError
        If there are steps, and nothing to train.
    raptor.errors.Unfinished
        If the time limit ended the training before its last step; the same command continues.
    """
    checkpoint = Path(trainer.default_root_dir) / CHECKPOINT
    path = checkpoint if checkpoint.is_file() else None
    log.info("%s: %d steps%s", task.name, trainer.max_steps, ", continued" if path else "")
    loggers, status = trainer.loggers, "failed"
    for logger in loggers:
        logger.log_hyperparams(dict(hyperparameters))
    try:
        if any(p.requires_grad for p in task.parameters()):
            trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
        elif trainer.max_steps:
            expected = "0: this model has nothing to train, it is only evaluated"
            raise ConfigError.of("trainer.max_steps", trainer.max_steps, expected, "set it to 0")
        trainer.loggers = []  # as points of the curves, Lightning would log it at another step
        validated = trainer.validate(task, datamodule=data, verbose=False)
        metrics = dict(validated[0]) if validated else {}
        for logger in loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        status = "success"
    finally:
        finish(loggers, status)
    return metrics


def steps_left(trainer: pl.Trainer, planned: int) -> int:
    """Return the steps that were left out, by a callback or by ``trainer.fast_dev_run``, and say so.

    Parameters
    ----------
    trainer
        After its training.
    planned
        Steps of the whole training.
    """
    left = planned - trainer.global_step
    if left > 0:
        by = "trainer.fast_dev_run" if trainer.fast_dev_run else "a callback"  # type: ignore[attr-defined]
        log.warning("%s ended the training at step %d of %d", by, trainer.global_step, planned)
    return left
