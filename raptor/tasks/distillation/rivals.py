"""Build rivals of a surrogate with as many parameters as its tied blocks; definitions in docs/controls.md.

Shapes: T tokens, D width, L layers of the teacher.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from raptor.analysis.influence import Influence
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.initialization import block_config, init_from_teacher
from raptor.models.options import RivalOptions
from raptor.models.rival import Rival, Stretch, kept_blocks
from raptor.models.surrogate import PhaseBlocks
from raptor.partition.phases import Phase
from raptor.tasks.context import Context
from raptor.tasks.distillation.phases import embedded_batches

log = logging.getLogger(__name__)
OF_TEACHER = ("truncated", "pruned", "linear")


def build_rival(context: Context, options: RivalOptions, phases: Sequence[Phase]) -> tuple[Rival, dict[str, Any]]:
    """Build the rival that options describe.

    Parameters
    ----------
    context
        What the task is built from.
    options
        Kind of rival, and what is trained.
    phases
        Phases of the surrogate that it is compared with.

    Returns
    -------
    tuple
        The rival, and plain data about the choice for results.

    Raises
    ------
    ConfigError
        If more blocks are to be kept than the teacher has.
    """
    teacher, L = context.teacher, context.teacher.num_layers
    config = block_config(teacher, context.surrogate.block)
    budget = len(phases) * count_parameters(RecurrentBlock(config))
    about: dict[str, Any] = {"tied_block_parameters": budget}
    made: dict[int, nn.Module] = {}
    if options.kind in ("untied", "per_layer"):
        plain = replace(config, depth_scaling=False)
        own = [Phase(layer - 1, layer) for layer in range(1, L + 1)]
        if options.kind == "untied":
            own, plain = list(phases), widened(plain, budget // len(phases))
        stretches = [Stretch(*phase, "block", is_trained=True) for phase in own]
        blocks = PhaseBlocks(plain, own, context.seed)
        teacher.hand_rope(blocks.applications())
        init_from_teacher(blocks, teacher, context.surrogate.init)
        made = {i: part.block for i, part in enumerate(blocks)}
    elif options.kind == "interpolated":
        stretches = [Stretch(*phase, "teacher", tuple(range(phase.start + 1, phase.end + 1))) for phase in phases]
    else:
        kept = options.layers or affordable(context, budget, options.kind)
        if kept > L:
            raise ConfigError.of("surrogate.rival.layers", kept, f"at most {L}, the layers of the teacher", "lower it")
        layers = list(range(1, kept + 1))
        if options.kind != "truncated":
            about |= {"images": min(options.images, len(context.data.train_images))}
        if options.kind == "pruned":
            about |= {"influence": measure_influence(context, options.images, 1)}
            layers = most_influential(about["influence"], kept)
        if options.kind == "linear" and kept < L:
            stretches, made = replace_by_linear(context, options, L - kept)
        else:
            stretches = kept_blocks(layers, L, options.healed)
        about |= {"kept": [layer for stretch in stretches for layer in stretch.layers]}
    matched = range(1, L + 1) if options.matched == "all" else None
    rival = Rival.of_teacher(teacher, context.surrogate.label, phases, stretches, made, matched)
    log.info("%s: %d parameters in blocks, tied blocks %d", rival.label, count_parameters(rival.blocks), budget)
    return rival, about


def count_parameters(module: nn.Module) -> int:
    """Count the numbers in a module."""
    return sum(p.numel() for p in module.parameters())


def widened(config: BlockConfig, parameters: int) -> BlockConfig:
    """Choose the hidden width of the MLP for which a block has about so many parameters, exact to one hidden unit."""
    sizes = []
    for hidden in (1, 2):
        sizes.append(count_parameters(RecurrentBlock(replace(config, mlp_ratio=hidden / config.width))))
    one, two = sizes
    hidden = max(1, round(1 + (parameters - one) / (two - one)))
    return replace(config, mlp_ratio=hidden / config.width)


def affordable(context: Context, budget: int, kind: str) -> int:
    """Return how many of the teacher's blocks have about so many parameters, at least one, at most all."""
    teacher = context.teacher
    one = count_parameters(teacher.blocks) / teacher.num_layers
    extra = teacher.width**2 + teacher.width if kind == "linear" else 0
    return min(teacher.num_layers, max(1, round((budget - extra) / one)))


def most_influential(influence: Sequence[float], kept: int) -> list[int]:
    """Return the layers, from 1, of the blocks of highest influence, in order of depth; of equals the first."""
    order = sorted(range(len(influence)), key=lambda i: (-influence[i], i))
    return sorted(i + 1 for i in order[:kept])


@torch.no_grad()
def measure_influence(context: Context, images: int, span: int) -> list[float]:
    """Measure the influence of every stretch of so many blocks on training images."""
    influence, teacher = Influence(span), context.teacher
    for x_BND in embedded_batches(teacher, context.data, images, "influence"):
        influence.update([x_BND, *teacher.steps(x_BND)])
    return influence.compute()


def replace_by_linear(
    context: Context, options: RivalOptions, dropped: int
) -> tuple[list[Stretch], dict[int, nn.Module]]:
    """Replace the stretch of so many blocks of least influence by a linear map in closed form.

    Returns
    -------
    tuple
        Stretches of the rival, and the map by number of its stretch.
    """
    influence, L = measure_influence(context, options.images, dropped), context.teacher.num_layers
    start = min(range(len(influence)), key=lambda i: influence[i])
    is_trained = options.healed == "all"
    whole = kept_blocks(range(1, L + 1), L, options.healed)
    stretches = [*whole[:start], Stretch(start, start + dropped, "linear", (), is_trained), *whole[start + dropped :]]
    return stretches, {start: fit_linear(context, options, start, start + dropped)}


@torch.no_grad()
def fit_linear(context: Context, options: RivalOptions, start: int, end: int) -> nn.Linear:
    """Fit the map that, added to the tokens of one layer, gives those of another, by ridge regression in float64."""
    teacher = context.teacher

    def pairs() -> Iterable[tuple[Tensor, Tensor]]:
        for x_BND in embedded_batches(teacher, context.data, options.images, "linear map"):
            first = teacher.run_to(x_BND, 0, start)
            yield first, teacher.run_to(first, start, end) - first

    return solve_ridge(pairs(), options.ridge)


def solve_ridge(pairs: Iterable[tuple[Tensor, Tensor]], ridge: float) -> nn.Linear:
    """Solve a ridge regression of targets on inputs with an intercept, which is not penalised.

    Parameters
    ----------
    pairs
        Inputs and targets, ``(..., D)``, batch by batch.
    ridge
        Penalty in units of the mean variance of an input channel.
    """
    tokens = 0
    sums: list[Tensor] = []
    for inputs, targets in pairs:
        x_TD, y_TD = inputs.double().flatten(0, -2), targets.double().flatten(0, -2)
        batch = [x_TD.sum(0), y_TD.sum(0), x_TD.T @ x_TD, x_TD.T @ y_TD]
        sums = batch if not sums else [a + b for a, b in zip(sums, batch, strict=True)]
        tokens += len(x_TD)
    mean_x, mean_y = sums[0] / tokens, sums[1] / tokens
    gram, cross = sums[2] - tokens * torch.outer(mean_x, mean_x), sums[3] - tokens * torch.outer(mean_x, mean_y)
    penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram + penalty, cross)
    linear = nn.Linear(len(gram), len(gram))
    linear.weight.data = weight.T.float().cpu().contiguous()
    linear.bias.data = (mean_y - mean_x @ weight).float().cpu()
    return linear
