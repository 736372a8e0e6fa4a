"""Lightning's trainer, tied to a run folder."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from raptor.data.module import ImageData
from raptor.data.sampling import check_shares
from raptor.errors import ConfigError
from raptor.runs.folder import RunFolder
from raptor.training.callbacks import AtomicCheckpointIO, RunStatus
from raptor.training.execution import Execution
from raptor.training.interface import Trainable

PROFILERS: dict[str, type[Any]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def build_trainer(config: DictConfig, run: RunFolder, data: ImageData) -> pl.Trainer:
    """Trainer with the loggers and callbacks of a configuration.

    Parameters
    ----------
    config
        With the nodes ``trainer``, ``logger`` and ``callbacks``.
    run
        The run folder that everything is written to.
    data
        Prepared data; it is told how many batches the training has.

    Raises
    ------
    ConfigError
        If Lightning refuses the settings, or they cannot work here.
    """
    settings: Any = OmegaConf.to_container(config.trainer, resolve=True)
    check_precision(settings)
    settings["max_steps"], data.steps = training_length(settings, len(data.train_images), data.batch_size)
    epochs = settings["check_val_every_n_epoch"]
    if epochs is not None:  # of the images: to Lightning, the whole training is one epoch
        settings["val_check_interval"] = epochs * -(-len(data.train_images) // data.batch_size)
        settings["check_val_every_n_epoch"] = None
    execution = Execution(**{key: settings.pop(key, False) for key in ("compile", "recompute", "keep_memory")})
    settings.pop("refresh_every", None)  # read by the progress bar
    if settings["profiler"] is not None:
        settings["profiler"] = _profiler(settings["profiler"], run)
    callbacks = [RunStatus(run), execution, *(c for c in instantiate(config.callbacks, _convert_="all").values() if c)]
    if not settings["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.ProgressBar)]
    loggers = [make(save_dir=str(run.path)) for make in instantiate(config.logger, _convert_="all").values() if make]
    try:
        return pl.Trainer(
            **settings,
            max_epochs=-1,
            default_root_dir=str(run.path),
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO(), *_slurm()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error


def check_precision(settings: dict[str, Any]) -> None:
    """Refuse float16 where it cannot work: on a CPU, with clipping (which does not undo the scaling), or throughout.

    Raises
    ------
    ConfigError
        Naming the key to change.
    """
    precision, accelerator, clip = (settings[key] for key in ("precision", "accelerator", "gradient_clip_val"))
    if not str(precision).startswith("16"):
        return
    if str(precision) not in ("16", "16-mixed"):
        raise ConfigError.of("trainer.precision", precision, "32-true, bf16-mixed or 16-mixed", "set it to bf16-mixed")
    if accelerator not in ("gpu", "cuda"):
        expected = f"float32 or bf16-mixed with trainer.accelerator={accelerator}: float16 needs a GPU"
        raise ConfigError.of("trainer.precision", precision, expected, "set trainer.precision=32-true")
    if clip:
        expected = f"no scaling of gradients with trainer.gradient_clip_val={clip}: clipping does not undo it"
        fix = "set trainer.precision=bf16-mixed, or trainer.gradient_clip_val=null"
        raise ConfigError.of("trainer.precision", precision, expected, fix)


def check_processes(trainer: pl.Trainer, task: Trainable, data: ImageData) -> None:
    """Refuse what several processes cannot do before any of them is started.

    Raises
    ------
    ConfigError
        If the task runs in one only, or they cannot share a batch equally.
    """
    processes = trainer.num_devices * trainer.num_nodes
    if task.one_process and processes > 1:
        raise ConfigError(
            f"trainer.devices={trainer.num_devices}, trainer.num_nodes={trainer.num_nodes}: task={task.name} runs in "
            "one process; set both to 1 (a sweep runs several probes side by side, one pass trains many heads)"
        )
    check_shares(data.batch_size, processes)


def _profiler(name: str, run: RunFolder) -> Profiler:
    """One of Lightning's profilers, writing to ``profile/`` in the run folder; by default the log would swallow it."""
    if str(name) not in PROFILERS:
        raise ConfigError(f"trainer.profiler={name!r} is unknown; choose {', '.join(PROFILERS)} or null")
    return PROFILERS[name](run.path / "profile", name)


def _slurm() -> list[SLURMEnvironment]:
    """Lightning's view of SLURM, but for its requeueing: that is submitit's."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def training_length(settings: dict[str, Any], num_images: int, batch_size: int) -> tuple[int, int]:
    """Optimiser steps and batches of a training: the smaller of ``max_steps`` and ``max_epochs``.

    An epoch is rounded up to whole batches.

    Parameters
    ----------
    settings
        The ``trainer`` node; both limits are taken out of it. Null or -1 is no limit, as in Lightning.
    num_images
        Training images.
    batch_size
        Images per batch over all processes.

    Raises
    ------
    ConfigError
        If there is no limit, or one is no whole number from 0 on.
    """
    steps, epochs = (settings.pop(key, None) for key in ("max_steps", "max_epochs"))
    accumulate = settings.get("accumulate_grad_batches") or 1
    limits = [] if steps in (None, -1) else [steps]
    if epochs not in (None, -1):
        limits.append(-(-num_images // (batch_size * accumulate)) * epochs)
    if not limits or not all(isinstance(limit, int) and limit >= 0 for limit in limits):
        raise ConfigError(
            f"trainer.max_steps={steps} and trainer.max_epochs={epochs}: one must be a whole number, 0 to judge only"
        )
    return min(limits), min(limits) * accumulate
