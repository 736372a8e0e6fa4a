"""Length of a training, and learning-rate schedules built from torch's own."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from raptor.errors import ConfigError


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.032, min_lr: float = 1e-6) -> LRScheduler:
    """Linear warm-up from zero, then cosine to ``min_lr``.

    Parameters
    ----------
    optimizer
        What to schedule.
    total_steps
        Steps of the whole training.
    warmup
        Share of the steps that warm up; the paper's 10,000 of 312,500 are 0.032.
    min_lr
        Learning rate at the end.

    Returns
    -------
    LRScheduler
        To be stepped once per optimiser step.
    """
    steps = min(round(warmup * total_steps), total_steps - 1)
    cosine = CosineAnnealingLR(optimizer, T_max=max(1, total_steps - steps), eta_min=min_lr)
    if steps < 1:
        return cosine
    rise = LinearLR(optimizer, start_factor=1e-8, total_iters=steps)
    return SequentialLR(optimizer, [rise, cosine], milestones=[steps])


def training_length(settings: dict[str, Any], num_images: int, batch_size: int) -> tuple[int, int]:
    """Optimiser steps and batches of a training: the smaller of ``max_steps`` and ``max_epochs``.

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
        If there is no limit, or one is no whole number above 0.
    """
    steps, epochs = (settings.pop(key, None) for key in ("max_steps", "max_epochs"))
    accumulate = settings.get("accumulate_grad_batches") or 1
    limits = [] if steps in (None, -1) else [steps]
    if epochs not in (None, -1):
        limits.append(-(-epochs * num_images // (batch_size * accumulate)))
    if not limits or not all(isinstance(limit, int) and limit > 0 for limit in limits):
        raise ConfigError(
            f"trainer.max_steps={steps} and trainer.max_epochs={epochs}: one must be a whole number above 0"
        )
    return min(limits), min(limits) * accumulate
