"""Fit the output maps of tied blocks in closed form, from the teacher's layers of their phases.

Shapes: B images, N tokens, D width, F inputs of a map, R rows (tokens of all images and layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raptor.models.block import Factors, RecurrentBlock
from raptor.models.surrogate import PhaseBlock, PhaseBlocks
from raptor.models.teacher import Teacher
from raptor.models.tokens import TokenLayout

PENALTY = 1e-3  # of the change of a map, in units of the mean squared input
SMALLEST = 1e-6  # variance that is divided by, in units of the mean square
ROUNDS = 2  # the first on the teacher's layers, the others on the rollout of the blocks so far

Batches = Callable[[], Iterable[Tensor]]


class MapFit:
    """Accumulate a weighted ridge regression that changes a linear map as little as it can.

    Parameters
    ----------
    linear
        The map that the fit starts from, F to D channels with a bias.
    """

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        size = linear.in_features + 1  # the bias is the weight of a constant input
        self.gram = linear.weight.new_zeros(size, size, dtype=torch.float64)
        self.cross = linear.weight.new_zeros(size, linear.out_features, dtype=torch.float64)

    def update(self, x_RF: Tensor, y_RD: Tensor, weight_R: Tensor) -> None:
        """Add rows: inputs, wanted outputs, and the weight of each row's squared error."""
        with torch.autocast(x_RF.device.type, enabled=False):
            x_RF = x_RF.float()
            x = torch.cat([x_RF, torch.ones_like(x_RF[:, :1])], dim=1)
            weighted = x * weight_R[:, None]
            self.gram += weighted.T @ x
            self.cross += weighted.T @ (y_RD.float() - self.linear(x_RF))

    def solve(self, penalty: float = PENALTY) -> None:
        """Change the map to the minimum of the weighted squared error plus the penalty on the change."""
        scale = self.gram.diagonal()[:-1].mean()
        penalties = torch.full_like(self.gram.diagonal(), penalty) * scale
        penalties[-1] = 1e-9 * self.gram[-1, -1]  # an offset costs nothing
        change = torch.linalg.solve(self.gram + penalties.diag(), self.cross)
        self.linear.weight.data += change[:-1].T.to(self.linear.weight)
        self.linear.bias.data += change[-1].to(self.linear.bias)


def fit_output_maps(blocks: PhaseBlocks, teacher: Teacher, batches: Batches, rounds: int = ROUNDS) -> None:
    """Fit the two output maps of each tied block, that of attention first and then that of the MLP.

    The map of attention is to lead from the block's tokens to the teacher's tokens between attention and MLP, the map
    of the MLP to the teacher's next layer. Every layer and token type has the same total weight: its squared error is
    divided by the teacher's variance about its mean over images. A fit on the teacher's layers does not see how errors
    of a rollout add up, so later rounds take the tokens of the block's own rollout as inputs, and keep the teacher's as
    what is wanted.

    Parameters
    ----------
    blocks
        Changed in place; each begins as the teacher's own (:func:`~raptor.models.initialization.init_from_teacher`).
    teacher
        Whose blocks take ``norm2`` of the tokens between attention and MLP, as pre-norm ones do.
    batches
        Gives normalised images, the same in every call: one pass for each map and round.
    rounds
        Number of rounds.
    """
    with torch.no_grad():
        for index in range(rounds):
            for part in ("attn.proj", "mlp.fc2"):
                fits = {b.phase: MapFit(cast(nn.Linear, b.block.get_submodule(part))) for b in blocks}
                for images in batches():
                    layers, middles = teacher_layers(teacher, images)
                    for block in blocks:
                        wanted = middles if part == "attn.proj" else layers
                        rows = _rows(block, layers, wanted, teacher.layout, part, forced=index == 0)
                        for row in rows:
                            fits[block.phase].update(*row)
                for fit in fits.values():
                    fit.solve()


def teacher_layers(teacher: Teacher, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Run the teacher, and keep its layers 0..L and the tokens between attention and MLP of each block.

    Parameters
    ----------
    teacher
        The teacher.
    images
        Normalised images.

    Returns
    -------
    tuple of list
        L + 1 layers, and L + 1 middles, of which the first is empty; each ``(B, N, D)``.
    """
    middles: list[Tensor] = [images.new_empty(0)]

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        middles.append(inputs[0])

    hooks = [block.get_submodule("norm2").register_forward_pre_hook(keep) for block in teacher.blocks]
    try:
        x = teacher.embed(images)
        return [x, *teacher.steps(x)], middles
    finally:
        for hook in hooks:
            hook.remove()


def _rows(
    block: PhaseBlock, layers: list[Tensor], wanted: list[Tensor], layout: TokenLayout, part: str, *, forced: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give inputs and wanted outputs of one map at each layer of a phase, with weights."""
    x_BND, own = layers[block.phase.start], block.block
    steps = range(block.phase.start + 1, block.phase.end + 1)
    for layer, factors in zip(steps, own.factors(torch.tensor(list(steps), device=x_BND.device)), strict=True):
        if forced:
            x_BND = layers[layer - 1]
        inputs, base, factor = _inside(own, x_BND, factors, part)
        target = wanted[layer]
        if part == "mlp.fc2" and factors[2] is not None:
            target = target / factors[2]
        y = (target - base) if factor is None else (target - base) / factor
        weight_N = _weights(layers[layer], layout)
        yield inputs.flatten(0, 1), y.flatten(0, 1), weight_N.repeat(len(y))
        x_BND = own.apply_once(x_BND, factors)


def _weights(target_BND: Tensor, layout: TokenLayout) -> Tensor:
    weights = target_BND.new_zeros(layout.num_tokens)
    for kind in layout.types:
        tokens = layout.slice(kind)
        x = target_BND[:, tokens].float()
        variance = x.var(dim=0, correction=1).mean()
        weights[tokens] = (
            1 / variance.clamp_min(SMALLEST * x.square().mean()) / (tokens.stop - tokens.start) / len(target_BND)
        )
    return weights


def _inside(block: RecurrentBlock, x: Tensor, factors: Factors, part: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the inputs of a map, the tokens that its output is added to, and the factor of its output."""
    kept: list[Tensor] = []
    hook = block.attn.proj.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    try:
        branch = block.attn(block.norm1(x))
    finally:
        hook.remove()
    if part == "attn.proj":
        return kept[0], x, factors[0]
    middle = x + (branch if factors[0] is None else factors[0] * branch)
    hidden = block.mlp.fc1(block.norm2(middle))
    if block.mlp.gated:
        gate, value = hidden.chunk(2, dim=-1)
        return F.silu(gate) * value, middle, factors[1]
    return F.gelu(hidden), middle, factors[1]
