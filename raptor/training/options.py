"""Options of a training: the trainer, optimisers, schedules and callbacks."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raptor.training.refused import REFUSED
from raptor.utils.options import Choice, Invalid, option, options

if TYPE_CHECKING:
    from pytorch_lightning import Callback
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    MakeOptimizer = Callable[[Iterable[Any]], Optimizer]
    MakeSchedule = Callable[..., LRScheduler]


class OptimizerNode(Choice):
    """An optimiser: ``optimizer=adamw|muon``, or any of torch's by ``_target_`` and ``_partial_: true``."""

    @abstractmethod
    def build(self) -> MakeOptimizer:
        """Return a function from parameters, or groups of them, to an optimiser."""


@options
class AdamWOptions(OptimizerNode):
    """AdamW, the paper's optimiser."""

    identity_name: ClassVar[str] = "adamw"

    lr: float = option("Learning rate", default=1e-3, gt=0)
    weight_decay: float = option("Decoupled weight decay", default=1e-2, ge=0)
    betas: list[float] = option("Decay of both moment estimates", default=[0.9, 0.999], min_length=2, max_length=2)
    eps: float = option("Term added to the denominator", default=1e-8, ge=0)
    fused: bool = option("One kernel for all parameters", default=True)
    foreach: bool | None = option("Update lists of parameters at once; null leaves it to torch", default=None)

    def build(self) -> MakeOptimizer:
        """Return ``torch.optim.AdamW`` with these settings."""
        import torch

        settings: Any = {"betas": tuple(self.betas), "eps": self.eps, "fused": self.fused, "foreach": self.foreach}
        return partial(torch.optim.AdamW, lr=self.lr, weight_decay=self.weight_decay, **settings)


@options
class MuonOptions(OptimizerNode):
    """Muon by timm: matrices move by orthogonalised momentum, everything else as by AdamW."""

    identity_name: ClassVar[str] = "muon"

    lr: float = option("Spectral norm of a step relative to the matrix's shape", default=1e-2, gt=0)
    fallback_lr_scale: float = option("Learning rate of AdamW as a share of lr", default=0.1, gt=0)
    weight_decay: float = option("Decoupled weight decay", default=1e-4, ge=0)
    adjust_lr_fn: str = option("timm's scaling of the step by the matrix's shape", default="rms_to_rms")

    def build(self) -> MakeOptimizer:
        """Return ``timm.optim.Muon`` with these settings."""
        from timm.optim import Muon

        settings = {"fallback_lr_scale": self.fallback_lr_scale, "adjust_lr_fn": self.adjust_lr_fn}
        return partial(Muon, lr=self.lr, weight_decay=self.weight_decay, **settings)


class ScheduleNode(Choice):
    """A learning-rate schedule, or a user's own function ``(optimizer, total_steps)`` by ``_target_``."""

    @abstractmethod
    def build(self) -> MakeSchedule:
        """Return a function of the optimiser and ``total_steps``."""


@options
class WarmupCosineOptions(ScheduleNode):
    """Linear warm-up from zero, then cosine: the paper's schedule of distillation."""

    identity_name: ClassVar[str] = "warmup_cosine"

    warmup: float = option(
        "Warm-up; 10,000 of 312,500 steps in the paper", default=0.032, unit="share of the steps", ge=0, le=1
    )
    min_lr: float = option("Learning rate at the end", default=1e-6, ge=0)

    def build(self) -> MakeSchedule:
        """Return :func:`raptor.training.schedules.warmup_cosine` with these settings."""
        from raptor.training.schedules import warmup_cosine

        return partial(warmup_cosine, warmup=self.warmup, min_lr=self.min_lr)


@options
class WarmupCosineSharesOptions(ScheduleNode):
    """Linear warm-up and cosine in shares of each parameter group's learning rate: the paper's linear probe."""

    identity_name: ClassVar[str] = "warmup_cosine_shares"

    warmup_steps: int = option("Warm-up, at most a tenth of the training", default=100, unit="steps", ge=0)
    start: float = option("Share of the learning rate at the first step", default=0.01, ge=0, le=1)
    end: float = option("Share of the learning rate at the last step", default=0.01, ge=0, le=1)

    def build(self) -> MakeSchedule:
        """Return :func:`raptor.training.schedules.warmup_cosine_shares` with these settings."""
        from raptor.training.schedules import warmup_cosine_shares

        return partial(warmup_cosine_shares, warmup_steps=self.warmup_steps, start=self.start, end=self.end)


class CallbackNode(Choice):
    """A Lightning callback."""

    watches: ClassVar[bool] = False  # whether it leaves what is computed alone

    @abstractmethod
    def build(self) -> Callback:
        """Return the callback."""


@options
class CheckpointOptions(CallbackNode):
    """Save the state of the training, so that a stopped run continues."""

    watches: ClassVar[bool] = True

    every_n_steps: int = option("Optimiser steps between two checkpoints", default=100, unit="steps", ge=1)

    def build(self) -> Callback:
        """Return :class:`raptor.training.checkpoints.LastCheckpoint`."""
        from raptor.training.checkpoints import LastCheckpoint

        return LastCheckpoint(self.every_n_steps)


@options
class SnapshotOptions(CallbackNode):
    """Export the model to ``snapshots/STEP`` in the run folder after chosen steps."""

    watches: ClassVar[bool] = True

    steps: list[int] = option("Optimiser steps after which to export", default=[], unit="steps")

    def __post_init__(self) -> None:
        if any(step < 1 for step in self.steps):
            raise Invalid("steps", self.steps, "a list of integers >= 1", "remove the others")

    def build(self) -> Callback:
        """Return :class:`raptor.training.callbacks.Snapshots`."""
        from raptor.training.callbacks import Snapshots

        return Snapshots(self.steps)


@options
class ProgressOptions(CallbackNode):
    """Show a progress bar."""

    watches: ClassVar[bool] = True

    every: int = option("Steps between two reads of the loss; each waits for a GPU", default=1, unit="steps", ge=1)

    def build(self) -> Callback:
        """Return :class:`raptor.training.execution.Progress`."""
        from raptor.training.execution import Progress

        return Progress(self.every)


class LoggerNode(Choice):
    """A Lightning logger; it never changes what is computed."""


PRECISIONS = Literal["32-true", "bf16-mixed", "16-mixed"]


@options
class TrainerOptions:
    """Lightning's trainer, and how blocks are executed."""

    refused: ClassVar[Mapping[str, tuple[str, str]]] = REFUSED

    compile: bool = option("Compile each block by itself; pays on a GPU", default=False)
    recompute: bool = option(
        "Recompute the inside of tied blocks in the backward pass: less memory, more time", default=False
    )
    keep_memory: bool = option(
        "Keep freed CPU memory in the process; no effect with recompute", default=True, identity=False
    )
    refresh_every: int = option(
        "Steps between two reads of the loss by the progress bar", default=1, ge=1, identity=False
    )
    accelerator: str = option("Device kind: cpu, gpu, or another of Lightning's", default="cpu")
    devices: int | str | list[int] = option("Number of devices, their indices, or auto", default=1)
    num_nodes: int = option("Machines", default=1, ge=1)
    strategy: str = option("Lightning's strategy of distributed training: auto, ddp, ...", default="auto")
    precision: PRECISIONS = option("Precision of the training", default="32-true")
    max_steps: int | None = option(
        "Optimiser steps; 0 evaluates only, null or -1 is no limit", default=None, unit="steps", ge=-1
    )
    max_epochs: int | None = option(
        "Passes over the images; null or -1 is no limit", default=None, unit="epochs", ge=-1
    )
    max_time: str | dict[str, Any] | None = option(
        "Time limit, DD:HH:MM:SS; the run then ends unfinished", default=None, identity=False
    )
    gradient_clip_val: float | None = option("Largest gradient norm; null clips nothing", default=1.0, ge=0)
    gradient_clip_algorithm: Literal["norm"] = option("Kind of clipping", default="norm")
    accumulate_grad_batches: int = option("Batches for one optimiser step", default=1, ge=1)
    val_check_interval: int | float | None = option(
        "Batches, or share of the training up to 1.0, between validations; null validates at the end",
        default=250,
        gt=0,
    )
    check_val_every_n_epoch: int | None = option(
        "Epochs between validations, instead of val_check_interval", default=None, ge=1
    )
    limit_train_batches: int | float | None = option("Refused: one epoch is the whole training", default=None, ge=0)
    limit_val_batches: int | float | None = option("Batches of a validation, or their share", default=None, ge=0)
    overfit_batches: int | float = option("Refused: batches are a function of seed and step", default=0.0, ge=0)
    fast_dev_run: bool | int = option("Run one batch, or so many, of training and validation", default=False)
    num_sanity_val_steps: int = option(
        "Validation batches before training; -1 is all", default=0, ge=-1, identity=False
    )
    log_every_n_steps: int = option("Steps between two rows of the logs", default=10, ge=1, identity=False)
    enable_progress_bar: bool = option("Show a progress bar", default=True, identity=False)
    enable_model_summary: bool = option("Print Lightning's summary of the modules", default=False, identity=False)
    profiler: Literal["simple", "advanced", "pytorch"] | None = option(
        "Write a profile to profile/", default=None, identity=False
    )
    deterministic: bool | Literal["warn"] | None = option("Use deterministic algorithms only", default=None)
    benchmark: bool | None = option("Let cuDNN choose the fastest algorithms", default=None)
    detect_anomaly: bool = option(
        "Stop at the operation that makes a NaN in the backward pass", default=False, identity=False
    )
    inference_mode: bool = option("Validate under inference_mode rather than no_grad", default=True, identity=False)

    def __post_init__(self) -> None:
        if self.max_steps in (None, -1) and self.max_epochs in (None, -1):
            raise Invalid("max_steps", self.max_steps, "a limit in max_steps or max_epochs", "set one of them to >= 0")
        one_epoch = "batches are a function of seed and step, and one epoch is the whole training"
        fix = "set trainer.max_steps (0 evaluates only), or use fewer images"
        if self.overfit_batches:
            raise Invalid("overfit_batches", self.overfit_batches, f"0: {one_epoch}", fix)
        if self.limit_train_batches is not None:
            raise Invalid("limit_train_batches", self.limit_train_batches, f"null: {one_epoch}", fix)
        for key in ("limit_val_batches", "val_check_interval"):
            value = getattr(self, key)
            if isinstance(value, float) and value > 1:
                expected = "a number of batches as an integer, or a share up to 1.0"
                raise Invalid(key, value, expected, f"set trainer.{key}={round(value)}")
        self._check_trial()
        self._check_time()
        self._check_float16()

    def _check_trial(self) -> None:
        if self.fast_dev_run < 0:
            raise Invalid("fast_dev_run", self.fast_dev_run, "true, false or a number of batches", "set it to true")
        if self.fast_dev_run and 0 in (self.max_steps, self.max_epochs):
            expected = "false where nothing is trained"
            raise Invalid("fast_dev_run", self.fast_dev_run, expected, "set trainer.limit_val_batches=1 in its place")

    def _check_time(self) -> None:
        valid = self.max_time is None
        if isinstance(self.max_time, str):
            valid = re.fullmatch(r"\s*\d+:\d\d:\d\d:\d\d\s*", self.max_time) is not None
        elif self.max_time is not None:
            try:
                valid = timedelta(**self.max_time) >= timedelta(0)
            except (TypeError, OverflowError):
                valid = False
        if not valid:
            expected = "DD:HH:MM:SS, a mapping such as {hours:2} or null"
            raise Invalid("max_time", self.max_time, expected, "write 00:02:00:00 for two hours")

    def _check_float16(self) -> None:
        if self.precision != "16-mixed":
            return
        if self.accelerator not in ("gpu", "cuda"):
            expected = f"32-true or bf16-mixed with trainer.accelerator={self.accelerator}: float16 needs a GPU"
            raise Invalid("precision", self.precision, expected, "set trainer.precision=32-true")
        if self.gradient_clip_val:
            expected = f"no scaling of gradients with trainer.gradient_clip_val={self.gradient_clip_val}"
            fix = "set trainer.precision=bf16-mixed, or trainer.gradient_clip_val=null"
            raise Invalid("precision", self.precision, expected, fix)
