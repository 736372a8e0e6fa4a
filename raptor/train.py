"""``python -m raptor.train``: compose a task, train it, write its run folder."""

from __future__ import annotations

import logging
import time
from typing import Any, ClassVar

from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.data.options import DataNode, SourceNode
from raptor.models.options import SurrogateOptions, TeacherNode
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs, identity
from raptor.runs.migration import roots
from raptor.runs.options import RecipeOptions, RunOptions
from raptor.tasks.context import Context, TaskNode
from raptor.training.options import CallbackNode, LoggerNode, TrainerOptions
from raptor.utils.options import option, options

log = logging.getLogger("raptor.train")


@options
class TrainOptions(RunOptions):
    """One job: a task on a teacher and data."""

    command: ClassVar[str] = "train"

    seed: int = option("Seed of everything random", default=0, ge=0, lt=2**32)
    task: TaskNode = option("What is trained")
    teacher: TeacherNode = option("The ViT whose layers are matched or probed")
    recipe: RecipeOptions = option("Size of the training; other nodes refer to it", identity=False)
    surrogate: SurrogateOptions = option("How depth is cut, and what a block is", default=SurrogateOptions())
    data: DataNode = option("Images")
    activations: SourceNode = option("Where training takes the teacher's layers from")
    trainer: TrainerOptions = option(
        "Lightning's trainer, and how blocks are executed", default=TrainerOptions(max_steps=1)
    )
    logger: dict[str, LoggerNode | None] = option("Loggers", default={}, identity=False)
    callbacks: dict[str, CallbackNode | None] = option("Lightning callbacks", default={})

    @property
    def about(self) -> dict[str, Any]:
        """What the table of :mod:`raptor.status` shows of the run."""
        return self.task.about(self.surrogate)


def folder(options: TrainOptions, config: DictConfig) -> RunFolder:
    """Make the run folder of a configuration."""
    name = f"{options.task.run_name(options.surrogate)}-seed{options.seed}"
    return RunFolder(options, config, name, former_name=f"{options.task.name}-seed{options.seed}")


@command(TrainOptions, folder)
def main(options: TrainOptions, run: RunFolder) -> float | None:
    """Run the job of a configuration, or say that it is finished."""
    result = run.result()
    if result is not None:
        log.info("%s is finished: %s", run, _shown(result["metrics"]))
    else:
        check_inputs(options)
        with run.recording():
            result = train(options, run)
        log.info("%s: %s", run, _shown(result["metrics"]))
    return result["metrics"].get(result.get("selection", {}).get("score", "val/top1"))


def train(options: TrainOptions, run: RunFolder) -> dict[str, Any]:
    """Train the task of a configuration and write its result.

    Parameters
    ----------
    options
        Typed configuration.
    run
        Its run folder, being recorded. A checkpoint in it is continued from.

    Returns
    -------
    dict
        What ``result.json`` holds.
    """
    import pytorch_lightning as pl

    from raptor.models.io import state_fingerprint
    from raptor.runs.history import curves, read_metrics
    from raptor.training.fit import fit, steps_left
    from raptor.training.hardware import check_hardware
    from raptor.training.trainer import build_trainer, check_processes, training_length

    begin = time.monotonic()
    check_hardware(options.trainer)
    pl.seed_everything(options.seed, verbose=False)
    teacher, data = options.teacher.build(), options.data.build()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=options.seed)
    trainer = build_trainer(options.trainer, options.logger, options.callbacks, run, data)
    planned = training_length(options.trainer, len(data.train_images), data.batch_size)
    context = Context(teacher, data, options.activations.build(), options.surrogate, options.seed)
    task = options.task.build(context)
    check_processes(trainer, task, data)

    metrics = fit(trainer, task, data, identity(options, roots(options)))
    if not trainer.is_global_zero:
        return {"metrics": metrics}

    result = {
        "task": task.name,
        "seed": options.seed,
        "model": task.describe(),
        "teacher": {
            "weights": getattr(options.teacher, "weights", None),
            "vit": teacher.spec.name,
            "layers": teacher.num_layers,
        },
        "data": data.summary(),
        "metrics": metrics,
        **task.details(),
        "steps": trainer.global_step,
        **({"ended_early": left} if (left := steps_left(trainer, planned)) > 0 else {}),
        "seconds": round(time.monotonic() - begin, 1),
        "history": curves(read_metrics(run.path)),
    }
    task.export(run.path, about={key: result[key] for key in ("task", "seed", "teacher", "data", "metrics")})
    result["weights_sha256"] = state_fingerprint(task.product)
    return run.finish(result)


def _shown(metrics: dict[str, float | None]) -> str:
    values = {name.removeprefix("val/"): "missing" if x is None else f"{x:.4g}" for name, x in sorted(metrics.items())}
    return ", ".join(f"{name} {value}" for name, value in values.items())


if __name__ == "__main__":
    main()
