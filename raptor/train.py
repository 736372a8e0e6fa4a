"""``python -m raptor.train``: compose a task, train it, write its run folder."""

from __future__ import annotations

import logging
import time
from typing import Any

from omegaconf import DictConfig, OmegaConf

from raptor.cli.command import command
from raptor.errors import ConfigError, from_node
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs

log = logging.getLogger("raptor.train")


def folder(config: DictConfig) -> RunFolder:
    """The run folder of a configuration."""
    return RunFolder(config, default_name=f"{config.task.name}-seed{config.seed}")


@command("train", folder)
def main(config: DictConfig, run: RunFolder) -> float | None:
    """Run the job of a configuration, or say that it is finished."""
    result = run.result()
    if result is not None:
        log.info("%s is finished: %s", run, _shown(result["metrics"]))
    else:
        check_inputs(config)
        with run.recording():
            result = train(config, run)
        log.info("%s: %s", run, _shown(result["metrics"]))
    return result["metrics"].get(result.get("selection", {}).get("score", "val/top1"))


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

    from raptor.models.io import state_fingerprint
    from raptor.runs.history import curves, read_metrics
    from raptor.tasks.distillation.phases import SurrogateOptions
    from raptor.training.callbacks import CHECKPOINT
    from raptor.training.loggers import finish
    from raptor.training.trainer import build_trainer, check_processes

    begin = time.monotonic()
    pl.seed_everything(config.seed, verbose=False)
    teacher = instantiate(config.teacher, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=config.seed)
    trainer = build_trainer(config, run, data)
    surrogate: Any = OmegaConf.to_container(config.surrogate, resolve=True)
    options = from_node(SurrogateOptions, surrogate, "surrogate")
    source = instantiate(config.activations, _convert_="all")
    build = instantiate(config.task, _partial_=True, _convert_="all")
    try:
        task = build(teacher=teacher, data=data, source=source, surrogate=options, seed=config.seed)
    except TypeError as error:
        raise ConfigError(f"task: {error}; see --cfg job for the keys it has") from error
    check_processes(trainer, task, data)

    checkpoint = run.path / CHECKPOINT if (run.path / CHECKPOINT).is_file() else None
    log.info("%s: %s for %d steps%s", run, config.task.name, trainer.max_steps, ", continued" if checkpoint else "")
    loggers, status = trainer.loggers, "failed"
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        trainer.loggers = []  # the last validation is the result, no point of the curves
        validated = trainer.validate(task, datamodule=data, verbose=False)
        metrics = validated[0] if validated else {}
        status = "success"
    finally:
        finish(loggers, status)
    if not trainer.is_global_zero:
        return {"metrics": metrics}

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


def _shown(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in sorted(metrics.items()))


if __name__ == "__main__":
    main()
