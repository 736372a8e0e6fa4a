"""Learning-rate schedules, built from torch's own."""

from __future__ import annotations

from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, SequentialLR


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


def warmup_cosine_shares(
    optimizer: Optimizer, total_steps: int, warmup_steps: int = 100, start: float = 0.01, end: float = 0.01
) -> LRScheduler:
    """Linear warm-up and cosine in shares of each parameter group's own learning rate: the paper's probes.

    Parameters
    ----------
    optimizer
        What to schedule; its groups may have rates of their own.
    total_steps
        Steps of the whole training.
    warmup_steps
        Steps that warm up, but no more than a tenth of all.
    start, end
        Share of the rate at the first step and at the end.

    Returns
    -------
    LRScheduler
        To be stepped once per optimiser step.
    """
    rise = min(warmup_steps, total_steps // 10)

    def share(step: int) -> float:
        if step < rise:
            return start + (1 - start) * step / rise
        done = min(1.0, (step - rise) / max(1, total_steps - rise))
        return end + (1 - end) * (1 + cos(pi * done)) / 2

    return LambdaLR(optimizer, share)
