"""Lightning's trainer, tied to a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from raptor.data.module import ImageData
from raptor.data.sampling import check_shares
from raptor.errors import ConfigError
from raptor.runs.folder import RunFolder
from raptor.training.callbacks import RunStatus
from raptor.training.checkpoints import LastCheckpoint, RunCheckpointIO, TimeLimit
from raptor.training.execution import Execution
from raptor.training.finite import FiniteNumbers
from raptor.training.interface import Trainable
from raptor.training.options import TrainerOptions
from raptor.utils.options import keys

PROFILERS: dict[str, type[Any]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
# callbacks of Lightning that only log, and refuse a trainer without loggers
NEED_LOGGERS: tuple[type[pl.Callback], ...] = (
    pl.callbacks.LearningRateMonitor,
    pl.callbacks.DeviceStatsMonitor,
    pl.callbacks.ThroughputMonitor,
)


def build_trainer(
    options: TrainerOptions,
    loggers: Mapping[str, Any],
    callbacks: Mapping[str, Any],
    run: RunFolder,
    data: ImageData,
) -> pl.Trainer:
    """Build the trainer with the loggers and callbacks of a configuration.

    Parameters
    ----------
    options
        The node ``trainer``.
    loggers, callbacks
        The nodes of these names; parts that are None are left out.
    run
        The run folder that everything is written to.
    data
        Prepared data, which gives the length of an epoch.

    Raises
    ------
    ConfigError
        If Lightning refuses the settings, or they cannot work here.
    """
    settings = {key.name: getattr(options, key.name) for key in keys(TrainerOptions)}
    settings["max_steps"] = steps = training_length(options, len(data.train_images), data.batch_size)
    batches = steps * options.accumulate_grad_batches
    settings["val_check_interval"] = _interval(options.val_check_interval, batches)
    _check_share(options.limit_val_batches, data)
    _check_nodes(options.num_nodes)
    epochs = options.check_val_every_n_epoch
    if epochs is not None:  # of the images: to Lightning, the whole training is one epoch
        settings["val_check_interval"] = epochs * -(-len(data.train_images) // data.batch_size)
        settings["check_val_every_n_epoch"] = None
    execution = Execution(**{key: settings.pop(key) for key in ("compile", "recompute", "keep_memory")})
    max_time = settings.pop("max_time")
    for key in ("refresh_every", "max_epochs"):  # read by the progress bar, and above
        del settings[key]
    if settings["profiler"] is not None:
        settings["profiler"] = _profiler(settings["profiler"], run)
    made = [node.build()(save_dir=str(run.path)) for node in loggers.values() if node is not None]
    built = [node.build() for node in callbacks.values() if node is not None]
    if max_time is not None and not any(isinstance(callback, LastCheckpoint) for callback in built):
        expected, fix = "null without callbacks.checkpoint, which saves and ends the training", "leave out one of them"
        raise ConfigError.of("trainer.max_time", max_time, expected, fix)
    unwanted: tuple[type[pl.Callback], ...] = () if options.enable_progress_bar else (pl.callbacks.ProgressBar,)
    unwanted += () if made else NEED_LOGGERS
    watching = [c for c in (FiniteNumbers(), RunStatus(run), execution, *built) if not isinstance(c, unwanted)]
    try:
        return pl.Trainer(
            **settings,
            max_epochs=-1,
            default_root_dir=str(run.path),
            logger=made,
            callbacks=[*watching, *([] if max_time is None else [TimeLimit(max_time)])],
            plugins=[RunCheckpointIO(run), *_slurm()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        key, value = _concerned(options, str(error))
        raise ConfigError.of(key, value, f"settings that Lightning takes ({error})", "correct it") from error


def _concerned(options: TrainerOptions, message: str) -> tuple[str, Any]:
    """Find the key that an error of Lightning is about: named in it, or set to a value that is."""
    changed = [key for key in keys(TrainerOptions) if getattr(options, key.name) != key.default]
    order = ("strategy", "devices", "num_nodes", "accelerator", *(key.name for key in changed))
    values = {key.name: getattr(options, key.name) for key in changed}
    named = [name for name in order if name in values and re.search(rf"\b{re.escape(str(values[name]))}\b", message)]
    named += [name for name in order if name in values and re.search(rf"\b{name}\b", message)]
    name = next(iter(named), "accelerator" if "accelerator" in values else None)
    return (f"trainer.{name}", values[name]) if name else ("trainer", "...")


def _interval(value: int | float | None, batches: int) -> int | None:
    """Return batches between validations; Lightning takes shares of an epoch, which is the whole training here."""
    return max(1, int(value * batches)) if isinstance(value, float) else value


def _check_nodes(nodes: int) -> None:
    """Refuse several nodes where nobody has started processes on them: Lightning would wait for them without a word."""
    started = SLURMEnvironment.detect() or TorchElasticEnvironment.detect() or "MASTER_ADDR" in os.environ
    if nodes > 1 and not started:
        expected = "1, as no processes were started on other nodes"
        fix = "start the run by hydra/launcher=slurm or torchrun, or set MASTER_ADDR and NODE_RANK on each node"
        raise ConfigError.of("trainer.num_nodes", nodes, expected, fix)


def _check_share(share: int | float | None, data: ImageData) -> None:
    batches = -(-len(data.val_images) // data.eval_batch_size)
    if isinstance(share, float) and 0 < share * batches < 1:
        expected = f"a share that is a batch or more; the validation has {batches} of data.eval_batch_size images"
        raise ConfigError.of("trainer.limit_val_batches", share, expected, "set trainer.limit_val_batches=1")


def check_processes(trainer: pl.Trainer, task: Trainable, data: ImageData) -> None:
    """Refuse what several processes cannot do before any of them is started.

    Raises
    ------
    ConfigError
        If the task runs in one only, or they cannot share a batch equally.
    """
    processes = trainer.num_devices * trainer.num_nodes
    if task.one_process and processes > 1:
        expected = f"one process for task={task.name} (trainer.num_nodes={trainer.num_nodes})"
        fix = "set trainer.devices=1 and trainer.num_nodes=1; a sweep runs several probes side by side"
        raise ConfigError.of("trainer.devices", trainer.num_devices, expected, fix)
    check_shares(data.batch_size, processes)


def _profiler(name: str, run: RunFolder) -> Profiler:
    """Make one of Lightning's profilers, writing to ``profile/`` in the run folder; its default is the log."""
    return PROFILERS[name](run.path / "profile", name)


def _slurm() -> list[SLURMEnvironment]:
    """Return Lightning's view of SLURM without its requeueing, which is submitit's."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def training_length(options: TrainerOptions, num_images: int, batch_size: int) -> int:
    """Return the optimiser steps of a training: the smaller of ``max_steps`` and ``max_epochs``.

    An epoch is rounded up to whole batches.

    Parameters
    ----------
    options
        The ``trainer`` node. Null or -1 is no limit, as in Lightning.
    num_images
        Training images.
    batch_size
        Images per batch over all processes.
    """
    limits = [] if options.max_steps in (None, -1) else [options.max_steps]
    if options.max_epochs not in (None, -1):
        limits.append(-(-num_images // (batch_size * options.accumulate_grad_batches)) * options.max_epochs)
    return min(limits)
