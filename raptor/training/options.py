"""Options of a training: the trainer, optimisers, schedules and callbacks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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

    lr: float = option(1e-3, "Learning rate", gt=0)
    weight_decay: float = option(1e-2, "Decoupled weight decay", ge=0)
    betas: list[float] = option([0.9, 0.999], "Decay of both moment estimates", min_length=2, max_length=2)
    eps: float = option(1e-8, "Term added to the denominator", ge=0)
    fused: bool = option(True, "One kernel for all parameters")

    def build(self) -> MakeOptimizer:
        """Return ``torch.optim.AdamW`` with these settings."""
        import torch

        settings = {"betas": tuple(self.betas), "eps": self.eps, "fused": self.fused}
        return partial(torch.optim.AdamW, lr=self.lr, weight_decay=self.weight_decay, **settings)


@options
class MuonOptions(OptimizerNode):
    """Muon by timm: matrices move by orthogonalised momentum, everything else as by AdamW."""

    identity_name: ClassVar[str] = "muon"

    lr: float = option(1e-2, "Spectral norm of a step relative to the matrix's shape", gt=0)
    fallback_lr_scale: float = option(0.1, "Learning rate of AdamW as a share of lr", gt=0)
    weight_decay: float = option(1e-4, "Decoupled weight decay", ge=0)
    adjust_lr_fn: str = option("rms_to_rms", "timm's scaling of the step by the matrix's shape")

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
        0.032, "Warm-up; 10,000 of 312,500 steps in the paper", unit="share of the steps", ge=0, le=1
    )
    min_lr: float = option(1e-6, "Learning rate at the end", ge=0)

    def build(self) -> MakeSchedule:
        """Return :func:`raptor.training.schedules.warmup_cosine` with these settings."""
        from raptor.training.schedules import warmup_cosine

        return partial(warmup_cosine, warmup=self.warmup, min_lr=self.min_lr)


@options
class WarmupCosineSharesOptions(ScheduleNode):
    """Linear warm-up and cosine in shares of each parameter group's learning rate: the paper's linear probe."""

    identity_name: ClassVar[str] = "warmup_cosine_shares"

    warmup_steps: int = option(100, "Warm-up, at most a tenth of the training", unit="steps", ge=0)
    start: float = option(0.01, "Share of the learning rate at the first step", ge=0, le=1)
    end: float = option(0.01, "Share of the learning rate at the last step", ge=0, le=1)

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

    every_n_steps: int = option(100, "Optimiser steps between two checkpoints", unit="steps", ge=1)

    def build(self) -> Callback:
        """Return :class:`raptor.training.callbacks.LastCheckpoint`."""
        from raptor.training.callbacks import LastCheckpoint

        return LastCheckpoint(self.every_n_steps)


@options
class SnapshotOptions(CallbackNode):
    """Export the model to ``snapshots/STEP`` in the run folder after chosen steps."""

    watches: ClassVar[bool] = True

    steps: list[int] = option([], "Optimiser steps after which to export", unit="steps")

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

    every: int = option(1, "Steps between two reads of the loss; each waits for a GPU", unit="steps", ge=1)

    def build(self) -> Callback:
        """Return :class:`raptor.training.execution.Progress`."""
        from raptor.training.execution import Progress

        return Progress(self.every)


class LoggerNode(Choice):
    """A Lightning logger; it never changes what is computed."""


PRECISIONS = Literal["32-true", "bf16-mixed", "64-true", 32, 64]


@options
class TrainerOptions:
    """Lightning's trainer, and how blocks are executed."""

    compile: bool = option(False, "Compile each block by itself; pays on a GPU")
    recompute: bool = option(False, "Recompute the inside of tied blocks in the backward pass: less memory, more time")
    keep_memory: bool = option(True, "Keep freed CPU memory in the process; no effect with recompute", identity=False)
    refresh_every: int = option(1, "Steps between two reads of the loss by the progress bar", ge=1, identity=False)
    accelerator: str = option("cpu", "Device kind: cpu, gpu, or another of Lightning's")
    devices: int | str | list[int] = option(1, "Number of devices, their indices, or auto")
    num_nodes: int = option(1, "Machines", ge=1)
    strategy: str = option("auto", "Lightning's strategy of distributed training: auto, ddp, ...")
    precision: PRECISIONS = option("32-true", "Precision of the training")
    max_steps: int | None = option(
        None, "Optimiser steps; 0 evaluates only, null or -1 is no limit", unit="steps", ge=-1
    )
    max_epochs: int | None = option(None, "Passes over the images; null or -1 is no limit", unit="epochs", ge=-1)
    max_time: str | dict[str, Any] | None = option(
        None, "Time limit, DD:HH:MM:SS; the run then ends unfinished", identity=False
    )
    gradient_clip_val: float | None = option(1.0, "Largest gradient norm; null clips nothing", ge=0)
    gradient_clip_algorithm: Literal["norm"] = option("norm", "Kind of clipping")
    accumulate_grad_batches: int = option(1, "Batches for one optimiser step", ge=1)
    val_check_interval: int | float | None = option(250, "Batches, or share of the training, between validations", gt=0)
    check_val_every_n_epoch: int | None = option(
        None, "Epochs between validations, instead of val_check_interval", ge=1
    )
    limit_train_batches: int | float | None = option(None, "Batches of an epoch, or their share", ge=0)
    limit_val_batches: int | float | None = option(None, "Batches of a validation, or their share", ge=0)
    overfit_batches: int | float = option(0.0, "Train on this many batches, or this share, again and again", ge=0)
    fast_dev_run: bool | int = option(False, "Run one batch, or so many, of training and validation")
    num_sanity_val_steps: int = option(0, "Validation batches before training; -1 is all", ge=-1, identity=False)
    log_every_n_steps: int = option(10, "Steps between two rows of the logs", ge=1, identity=False)
    enable_progress_bar: bool = option(True, "Show a progress bar", identity=False)
    enable_model_summary: bool = option(False, "Print Lightning's summary of the modules", identity=False)
    profiler: Literal["simple", "advanced", "pytorch"] | None = option(
        None, "Write a profile to profile/", identity=False
    )
    deterministic: bool | Literal["warn"] | None = option(None, "Use deterministic algorithms only")
    benchmark: bool | None = option(None, "Let cuDNN choose the fastest algorithms")
    detect_anomaly: bool = option(False, "Stop at the operation that makes a NaN in the backward pass", identity=False)
    inference_mode: bool = option(True, "Validate under inference_mode rather than no_grad", identity=False)

    def __post_init__(self) -> None:
        if self.max_steps in (None, -1) and self.max_epochs in (None, -1):
            raise Invalid("max_steps", self.max_steps, "a limit in max_steps or max_epochs", "set one of them to >= 0")
