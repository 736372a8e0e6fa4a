"""Select the step and the learning rate of a probe by a rule.

``last``
    Nothing is selected: the last step of a training on all training images.
``official``
    The best epoch on the validation images themselves, as in the paper's code. The start counts as epoch 0.
``held_out``
    A training on nine tenths of the training images; the tenth that is held out selects, and the validation
    images are looked at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raptor.data.module import HELD_OUT
from raptor.errors import ConfigError
from raptor.tasks.probes.rules import RULES


@dataclass(frozen=True)
class HeadSpec:
    """Describe one of the heads that train side by side.

    Parameters
    ----------
    seed
        Seed of its weights.
    learning_rate
        Its learning rate; None takes the optimiser's.
    holds_out
        Whether it is kept from the held-out training images.
    """

    seed: int
    learning_rate: float | None
    holds_out: bool


def check_rules(rules: Sequence[str], learning_rates: int) -> list[str]:
    """Check that the rules of selection work together, and drop repeated ones; the first is shown.

    Raises
    ------
    ConfigError
        If there is none, one is unknown, or nothing could choose among learning rates.
    """
    if not rules or isinstance(rules, str) or not set(rules) <= RULES.keys():
        expected = f"a list of {', '.join(RULES)}; the first is shown in tables"
        raise ConfigError.of("task.selection", rules, expected, "set it to such a list")
    if "last" in rules and learning_rates > 1:
        expected = "official or held_out with several task.learning_rates: last selects nothing"
        raise ConfigError.of("task.selection", list(rules), expected, "give one rate, or take last out")
    return list(dict.fromkeys(rules))


def plan_heads(rules: Sequence[str], seeds: Sequence[int], learning_rates: Sequence[float | None]) -> list[HeadSpec]:
    """List all heads that the rules need: ``official`` and ``last`` share theirs."""
    trainings = sorted({rule == HELD_OUT for rule in rules})
    return [HeadSpec(seed, rate, holds) for holds in trainings for seed in seeds for rate in learning_rates]


class BestHeads(nn.Module):
    """Keep the best weights so far of heads that train side by side; part of a checkpoint.

    Parameters
    ----------
    heads
        The heads as they start.
    specs
        Seed, learning rate and training images of each.
    higher_is_better
        Whether a higher score is the better one.
    """

    score: Tensor
    last: Tensor
    step: Tensor
    steps: Tensor

    def __init__(self, heads: nn.ModuleList, specs: Sequence[HeadSpec], *, higher_is_better: bool) -> None:
        super().__init__()
        self.specs, self.higher_is_better = list(specs), higher_is_better
        self.heads = copy.deepcopy(heads).requires_grad_(requires_grad=False)
        for name in ("score", "last"):
            self.register_buffer(name, torch.full((len(specs),), math.nan, dtype=torch.float64))
        self.register_buffer("step", torch.zeros(len(specs), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def update(self, i: int, value: float, head: nn.Module, step: int) -> None:
        """Compare the score of a head after a step; keep its weights if none was better. NaN is never better."""
        self.last[i], best = value, float(self.score[i])
        self.steps.fill_(step)
        if not math.isnan(value) and not (best >= value if self.higher_is_better else best <= value):
            self.score[i], self.step[i] = value, step
            self.heads[i].load_state_dict(head.state_dict())

    def chosen(self, rule: str, seed: int) -> int:
        """Choose the head of a seed by a rule."""
        heads = [i for i, s in enumerate(self.specs) if s.seed == seed and s.holds_out == (rule == HELD_OUT)]
        values = self.score.tolist()
        known = [i for i in heads if not math.isnan(values[i])]
        return (max if self.higher_is_better else min)(known or heads, key=lambda i: values[i])

    def record(self, i: int, epoch: float) -> dict[str, Any]:
        """Describe how a head was chosen; ``epoch`` is the number of steps in one."""
        step, last = int(self.step[i]), int(self.steps)
        return {
            "step": step,
            "epoch": round(step / epoch, 2),
            "selected_on": float(self.score[i]),
            "last_step": last,
            "last_epoch": round(last / epoch, 2),
            "last_selected_on": float(self.last[i]),
        }
