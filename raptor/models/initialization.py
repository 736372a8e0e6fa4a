"""Tied blocks that begin as what the teacher has learned, rather than at random."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.block import RecurrentBlock
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher

INITS = ("random", "middle", "mean")
SAME = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")  # modules of the same name and shape


def init_from_teacher(blocks: PhaseBlocks, teacher: Teacher, start: str) -> None:
    """Give each tied block the weights of the teacher's blocks of its phase; depth scaling stays near one.

    Parameters
    ----------
    blocks
        Filled in place.
    teacher
        Whose blocks ``start..end-1`` make the layers of a phase.
    start
        ``"random"`` leaves the blocks alone, ``"middle"`` takes the middle one of the phase, ``"mean"`` the mean of
        all weights.

    Raises
    ------
    ConfigError
        If the start is unknown, or the teacher's blocks are built otherwise than the tied ones.
    """
    if start not in INITS:
        raise ConfigError(f"surrogate.init={start!r} is unknown; choose {', '.join(INITS)}")
    if start == "random":
        return
    for phase in blocks.phases:
        own = blocks.of(phase).block
        middle = (phase.start + phase.end) // 2
        layers = [middle] if start == "middle" else range(phase.start, phase.end)
        states = [_weights(teacher.blocks[layer], own) for layer in layers]
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        own.load_state_dict(mean, strict=False)


def _weights(layer: nn.Module, own: RecurrentBlock) -> dict[str, Tensor]:
    """Weights of one of the teacher's blocks under the names of a tied block."""
    found: dict[str, Tensor] = {}
    for name in SAME:
        try:
            theirs = layer.get_submodule(name).state_dict()
        except AttributeError as error:
            raise ConfigError(f"surrogate.init: the teacher's blocks have no {name}; set it to random") from error
        ours = own.get_submodule(name).state_dict()
        shapes = [{key: tuple(tensor.shape) for key, tensor in state.items()} for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"surrogate.init: {name} has {shapes[0]} in the teacher and {shapes[1]} in surrogate.block: set its "
                "mlp=gelu and the teacher's mlp_ratio, or surrogate.init=random"
            )
        found |= {f"{name}.{key}": value.detach().clone() for key, value in theirs.items()}
    attention = layer.get_submodule("attn")
    if any(not isinstance(getattr(attention, n, nn.Identity()), nn.Identity) for n in ("q_norm", "k_norm", "norm")):
        raise ConfigError("surrogate.init: the teacher normalises queries and keys; set it to random")
    for ours_, theirs_ in (("gamma1", "ls1"), ("gamma2", "ls2")):
        gamma = getattr(getattr(layer, theirs_, None), "gamma", None)
        if getattr(own, ours_) is not None:
            found[ours_] = torch.ones(own.config.width) if gamma is None else gamma.detach().clone()
        elif gamma is not None:
            raise ConfigError("surrogate.init: the teacher has LayerScale; set block.layer_scale, or random")
    return found
