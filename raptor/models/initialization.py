"""Tied blocks of a teacher: their shape, and weights that begin as its own rather than at random."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.attention import RopeConfig
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.options import BlockOptions
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher

INITS = ("random", "middle", "mean")
KINDS = (vision_transformer.Block, eva.EvaBlock, beit.Block)  # of the teacher, that compute as tied blocks do
COPIED = ("norm1.", "norm2.", "attn.qkv.", "attn.proj.", "mlp.")
TABLE = "relative_position_bias_table"


def block_config(teacher: Teacher, options: BlockOptions) -> BlockConfig:
    """Return the shape of a block: the teacher's width, and its heads and positions unless the options say otherwise.

    Raises
    ------
    ConfigError
        If the teacher's rotary embedding is for heads of another width.
    """
    heads = options.num_heads or teacher.num_heads
    return BlockConfig(
        width=teacher.width,
        num_heads=heads,
        mlp=options.mlp,
        mlp_ratio=options.mlp_ratio,
        layer_scale=options.layer_scale,
        depth_scaling=options.depth_scaling,
        rope=_rope_config(teacher, heads) if options.rope == "teacher" else None,
        relative_bias=teacher.grid if options.relative_bias == "teacher" and teacher.has_relative_bias else None,
    )


def _rope_config(teacher: Teacher, heads: int) -> RopeConfig | None:
    rope = teacher.rope_of(1)
    if rope is None:
        return None
    rope_heads, tokens, width = rope.shape
    if width * heads != 2 * teacher.width or rope_heads not in (1, heads):
        expected = f"null, since the teacher's rotary embedding is for its {teacher.num_heads} heads of {width // 2}"
        fix = "set it to null, or surrogate.block.rope=none"
        raise ConfigError.of("surrogate.block.num_heads", heads, expected, fix)
    return RopeConfig(rope_heads, tokens, bool(getattr(teacher.get_submodule("blocks.0.attn"), "rotate_half", False)))


def init_from_teacher(blocks: PhaseBlocks, teacher: Teacher, init: str) -> None:
    """Give each tied block the weights of the teacher's blocks of its phase; depth scaling stays near one.

    Parameters
    ----------
    blocks
        Filled in place.
    teacher
        Whose blocks ``start..end-1`` make the layers of a phase.
    init
        ``"random"`` leaves the blocks alone, ``"middle"`` takes the middle one of the phase, ``"mean"`` the mean of
        all weights.

    Raises
    ------
    ConfigError
        If it is unknown, or the teacher's blocks are built otherwise than the tied ones.
    """
    if init not in INITS:
        raise ConfigError.of("surrogate.init", init, " or ".join(INITS), f"set it to {INITS[0]}")
    if init == "random":
        return
    for phase in blocks.phases:
        student = blocks.of(phase).block
        middle = (phase.start + phase.end) // 2
        layers = [middle] if init == "middle" else range(phase.start, phase.end)
        states = [_weights(teacher, layer, student, init) for layer in layers]
        mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
        student.load_state_dict(mean, strict=False)


def _weights(teacher: Teacher, layer: int, student: RecurrentBlock, init: str) -> dict[str, Tensor]:
    """Collect the weights of one of the teacher's blocks under the names of a tied block."""
    block: Any = teacher.blocks[layer]
    if type(block) not in KINDS:
        raise _unequal(
            init, f"blocks of the teacher are {type(block).__name__}, which compute otherwise than tied ones"
        )
    for name in ("attn.q_norm", "attn.k_norm", "attn.norm", "attn.gate", "mlp.norm"):
        part, _, norm = name.partition(".")
        if not isinstance(getattr(getattr(block, part), norm, None), nn.Identity | None):
            raise _unequal(init, f"the teacher has {name}, which tied blocks have not")
    state = {
        f"{name}.{key}": x for name in ("norm1", "norm2") for key, x in block.get_submodule(name).named_parameters()
    }
    state |= {f"attn.proj.{key}": x for key, x in block.attn.proj.named_parameters()}
    state |= _qkv(block.attn) | _mlp(block.mlp)
    for ours, theirs in (("gamma1", ("ls1", "gamma_1")), ("gamma2", ("ls2", "gamma_2"))):
        gammas = [getattr(block, name, None) for name in theirs]
        gamma = next((getattr(x, "gamma", x) for x in gammas if isinstance(getattr(x, "gamma", x), Tensor)), None)
        if getattr(student, ours) is not None:
            state[ours] = student.norm1.weight.new_ones(student.config.width) if gamma is None else gamma
        elif gamma is not None:
            raise ConfigError.of("surrogate.block.layer_scale", None, "a number, since the teacher has it", "set it")
    if student.attn.relative_bias is not None:
        tables = [block.attn.relative_position_bias_table, getattr(teacher.shell.vit.rel_pos_bias, TABLE, None)]
        state["attn.relative_bias"] = torch.stack([table for table in tables if table is not None]).sum(0)
    expected = student.state_dict()
    for name, tensor in state.items():
        if name not in expected or tensor.shape != expected[name].shape:
            shape = tuple(expected[name].shape) if name in expected else "none"
            raise _unequal(init, f"{name} is {tuple(tensor.shape)} in the teacher and {shape} in surrogate.block")
    for name in expected:
        if name.startswith(COPIED) and name not in state:
            raise _unequal(init, f"the teacher has no {name}")
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _qkv(attention: Any) -> dict[str, Tensor]:
    """Collect weight and bias of queries, keys and values, which some families keep apart or without bias."""
    if attention.qkv is not None:
        weight, bias = attention.qkv.weight, attention.qkv.bias
        if bias is None and getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    else:
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        weight = torch.cat([part.weight for part in parts])
        zeros = [torch.zeros_like(part.weight[:, 0]) for part in parts]
        bias = torch.cat([z if part.bias is None else part.bias for part, z in zip(parts, zeros, strict=True)])
    return {"attn.qkv.weight": weight, "attn.qkv.bias": torch.zeros_like(weight[:, 0]) if bias is None else bias}


def _mlp(mlp: Any) -> dict[str, Tensor]:
    """Collect both linear maps of an MLP; a gate of its own goes before the values."""
    first = [mlp.fc1_g, mlp.fc1_x] if hasattr(mlp, "fc1_g") else [mlp.fc1]
    state = {
        f"mlp.fc1.{key}": torch.cat([dict(x.named_parameters())[key] for x in first]) for key in ("weight", "bias")
    }
    return state | {f"mlp.fc2.{key}": x for key, x in mlp.fc2.named_parameters()}


def _unequal(init: str, what: str) -> ConfigError:
    fix = "set it to random; or surrogate.block.mlp and mlp_ratio to the teacher's, such as mlp=gelu"
    return ConfigError.of("surrogate.init", init, f"random ({what})", fix)
