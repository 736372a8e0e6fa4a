"""``python -m raptor.train``: compose a task, train it, write its run folder."""

from __future__ import annotations

import logging
import time
from typing import Any

from omegaconf import DictConfig

from raptor.cli import command
from raptor.errors import ConfigError, from_node
from raptor.results.run import RunFolder

log = logging.getLogger("raptor.train")


@command("train")
def main(config: DictConfig) -> float | None:
    """Run the job of a configuration, or say that it is finished."""
    run = RunFolder(config, default_name=f"{config.task.name}-seed{config.seed}")
    result = run.result()
    if result is not None:
        log.info("%s is finished: %s", run, _shown(result["metrics"]))
    else:
        with run.recording():
            result = train(config, run)
        log.info("%s: %s", run, _shown(result["metrics"]))
    return result["metrics"].get("val/top1")


def train(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Train the task of a configuration and write its result.

    Parameters
    ----------
    config
        Composed from ``configs/train.yaml``.
    run
        Its run folder, being recorded. A checkpoint in it is continued from.

    Returns
    -------
    dict
        What ``result.json`` holds.
    """
    import pytorch_lightning as pl
    from hydra.utils import instantiate
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from raptor.models.io import state_fingerprint
    from raptor.results.history import curves, read_metrics
    from raptor.results.loggers import finish
    from raptor.tasks.callbacks import CHECKPOINT, AtomicCheckpointIO, RunStatus
    from raptor.tasks.partitioning import SurrogateOptions
    from raptor.tasks.schedules import training_length

    begin = time.monotonic()
    pl.seed_everything(config.seed, verbose=False)
    teacher = instantiate(config.teacher, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=config.seed)
    options = from_node(SurrogateOptions, plain(config.surrogate), "surrogate")
    build = instantiate(config.task, _partial_=True, _convert_="all")
    try:
        task = build(teacher=teacher, data=data, surrogate=options, seed=config.seed)
    except TypeError as error:
        raise ConfigError(f"task: {error}; see --cfg job for the keys it has") from error

    settings = plain(config.trainer)
    if str(settings["precision"]).startswith("16"):
        raise ConfigError(
            "trainer.precision=16-mixed scales gradients, which clipping here does not undo: use bf16-mixed"
        )
    settings["max_steps"], data.steps = training_length(settings, len(data.train_images), data.batch_size)
    loggers = [make(save_dir=str(run.path)) for make in instantiate(config.logger, _convert_="all").values()]
    callbacks = [RunStatus(run), *(c for c in instantiate(config.callbacks, _convert_="all").values() if c)]
    if not settings["enable_progress_bar"]:
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.ProgressBar)]
    try:
        trainer = pl.Trainer(
            **settings,
            max_epochs=-1,
            default_root_dir=str(run.path),
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: {error}") from error
    checkpoint = run.path / CHECKPOINT if (run.path / CHECKPOINT).is_file() else None
    log.info("%s: %s for %d steps%s", run, config.task.name, trainer.max_steps, ", continued" if checkpoint else "")
    status = "failed"
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.loggers = []  # the last validation is the result, no point of the curves
        validated = trainer.validate(task, datamodule=data, verbose=False)
        metrics = validated[0] if validated else {}
        status = "success"
    finally:
        finish(loggers, status)

    result = {
        "task": config.task.name,
        "seed": config.seed,
        "model": task.describe(),
        "teacher": {
            "weights": config.teacher.weights,
            "vit": teacher.spec.name,
            "layers": teacher.num_layers,
        },
        "data": data.summary(),
        "metrics": metrics,
        **task.details(),
        "steps": trainer.global_step,
        "seconds": round(time.monotonic() - begin, 1),
        "history": curves(read_metrics(run.path)),
    }
    task.export(run.path, about={key: result[key] for key in ("task", "seed", "teacher", "data", "metrics")})
    result["weights_sha256"] = state_fingerprint(task.product)
    return run.finish(result)


def plain(node: DictConfig) -> dict[str, Any]:
    """A config node as a plain dictionary."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def _shown(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in sorted(metrics.items()))


if __name__ == "__main__":
    main()
