"""Exponential moving averages of the trained weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from raptor.cli import sweeps
from raptor.data.digits import Digits
from raptor.models.block import BlockConfig
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase
from raptor.tasks.distillation.losses import TokenMSE
from raptor.tasks.distillation.task import Distillation
from raptor.train import main
from raptor.training.averaging import WeightAverage


class Watch(pl.Callback):
    """Note the weights of every step, and those that are validated."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.steps.append(weights(pl_module))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(weights(pl_module))


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def weights(task: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in task.named_parameters() if p.requires_grad}


@pytest.fixture
def run(teacher: Teacher, block_config: BlockConfig, tmp_path: Path) -> Callable[..., Any]:
    def fit(steps: int, *callbacks: pl.Callback, path: Path | None = None) -> tuple[Any, pl.Trainer, Digits]:
        task = Distillation(
            teacher=teacher,
            model=PhaseBlocks(block_config, [Phase(1, 3)], seed=0),
            loss=TokenMSE(),
            name="test",
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
            schedule=None,
            seed=0,
        )
        data = Digits(batch_size=4)
        data.prepare((1, 8, 8), (0.3,), (0.4,))
        quiet: Any = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(
            **quiet,
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            callbacks=list(callbacks),
            limit_val_batches=1,
            val_check_interval=min(3, steps),
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )
        trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
        return task, trainer, data

    return fit


def test_validations_and_the_end_have_the_average_and_the_training_is_undisturbed(run: Callable[..., Any]) -> None:
    plain, watch, average = Watch(), Watch(), WeightAverage(0.5, warmup=False)
    run(6, plain)
    task, trainer, data = run(6, average, watch)
    for one, other in zip(plain.steps, watch.steps, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    start = PhaseBlocks(task.model.config, [Phase(1, 3)], seed=0).state_dict()
    expected = {name: start[name.removeprefix("model.")] for name in watch.steps[0]}
    for n, step in enumerate(watch.steps, start=1):
        expected = {name: 0.5 * expected[name] + 0.5 * step[name] for name in step}
        if n == 3:
            torch.testing.assert_close(watch.validated[0], expected)
    trainer.validate(task, datamodule=data, verbose=False)
    torch.testing.assert_close(weights(task), expected)


def test_a_continued_run_has_the_same_average(run: Callable[..., Any], tmp_path: Path) -> None:
    whole, first, second = WeightAverage(0.9), WeightAverage(0.9), WeightAverage(0.9)
    run(6, whole)
    run(6, first, SaveAt(4, tmp_path / "half.ckpt"))
    run(6, second, path=tmp_path / "half.ckpt")
    assert all(torch.equal(tensor, second.average[name]) for name, tensor in whole.average.items())


def test_the_average_begins_near_the_weights(run: Callable[..., Any]) -> None:
    watch, average = Watch(), WeightAverage(0.999)
    run(1, average, watch)
    d = 2 / 11  # (1 + 1) / (10 + 1)
    start = PhaseBlocks(BlockConfig(width=16, num_heads=2, layer_scale=0.3), [Phase(1, 3)], seed=0).state_dict()
    for name, tensor in watch.steps[0].items():
        torch.testing.assert_close(average.average[name], d * start[name.removeprefix("model.")] + (1 - d) * tensor)


@pytest.mark.parametrize("name", ["default", "early_stopping", "ema"])
def test_presets_of_callbacks_hold_the_default(name: str) -> None:
    (job,) = sweeps.jobs("train", [f"callbacks={name}"])
    callbacks = main.parse(job.config).callbacks
    assert {"checkpoint", "snapshots", "progress", "learning_rate"} <= callbacks.keys()
    assert len(callbacks) == 4 + (name != "default")
    assert all(node is not None and isinstance(node.build(), pl.Callback) for node in callbacks.values())
