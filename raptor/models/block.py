"""The recurrent block: a pre-norm transformer block with the depth as an input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raptor.errors import ConfigError
from raptor.models.attention import Attention, RopeConfig

MLPS = ("swiglu", "gelu")
Factors = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class BlockConfig:
    """Everything that rebuilds a :class:`RecurrentBlock`.

    Parameters
    ----------
    width
        Width D of the tokens.
    num_heads
        Attention heads; must divide ``width``.
    mlp
        ``"swiglu"`` or ``"gelu"``.
    mlp_ratio
        Hidden width of the MLP as a multiple of ``width``.
    layer_scale
        Initial value of LayerScale on both branches, or None for none.
    depth_scaling
        Whether the branches and the output are scaled by a learned function of the depth index t.
    eps
        Epsilon of both LayerNorms.
    rope
        Rotary embedding of queries and keys, a constant that is handed over from a teacher; None for none.
    relative_bias
        Rows and columns of the grid of patches between whose tokens attention has a learned bias, as in BEiT; None for
        none.
    """

    width: int
    num_heads: int
    mlp: str = "swiglu"
    mlp_ratio: float = 4.0
    layer_scale: float | None = 1e-5
    depth_scaling: bool = True
    eps: float = 1e-5
    rope: RopeConfig | None = None
    relative_bias: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.width % self.num_heads:
            expected = f"a divisor of the width {self.width}"
            raise ConfigError.of("surrogate.block.num_heads", self.num_heads, expected, "set it to null")
        if self.mlp not in MLPS:
            raise ConfigError.of("surrogate.block.mlp", self.mlp, " or ".join(MLPS), "choose one")
        if self.mlp_ratio <= 0:
            raise ConfigError.of("surrogate.block.mlp_ratio", self.mlp_ratio, "number > 0", "set it to 4")

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary for ``model.json``."""
        positions = {"rope": self.rope, "relative_bias": self.relative_bias}
        return {key: value for key, value in asdict(self).items() if positions.get(key, self) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BlockConfig:
        """Read the dictionary of :meth:`to_dict`."""
        rope, grid = values.get("rope"), values.get("relative_bias")
        positions = {"rope": rope and RopeConfig(**rope), "relative_bias": grid and tuple(grid)}
        return cls(**{**values, **positions})


class MLP(nn.Module):
    """Two-layer perceptron, gated (SwiGLU, gate first) or plain (GELU).

    Parameters
    ----------
    width
        Width D of the tokens.
    hidden
        Width between the layers.
    kind
        ``"swiglu"`` or ``"gelu"``.
    """

    def __init__(self, width: int, hidden: int, kind: str) -> None:
        super().__init__()
        self.gated = kind == "swiglu"
        self.fc1 = nn.Linear(width, 2 * hidden if self.gated else hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map every token: ``(B, N, D)`` to ``(B, N, D)``."""
        x = self.fc1(x)
        if self.gated:
            gate, value = x.chunk(2, dim=-1)
            return self.fc2(F.silu(gate) * value)
        return self.fc2(F.gelu(x))


class DepthScale(nn.Module):
    """Factors of the two branches and the output as a function of depth.

    ``s(t) = 1 + W2 silu(W1 t + b1) + b2`` with ``W1: 1 -> 16`` and ``W2: 16 -> 3D``; ``W2`` and ``b2`` start
    with standard deviation 1e-4, so that all factors start near one.
    """

    HIDDEN = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1, self.HIDDEN)
        self.fc2 = nn.Linear(self.HIDDEN, 3 * width)
        nn.init.normal_(self.fc2.weight, std=1e-4)
        nn.init.normal_(self.fc2.bias, std=1e-4)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors at depth index t.

        Parameters
        ----------
        t
            Depth indices ``(n,)``, not normalised.

        Returns
        -------
        tuple of Tensor
            Three factors, each ``(n, D)``.
        """
        # in bfloat16 a factor near one is off by up to 0.4 %, and the output factor multiplies the whole stream
        with torch.autocast(t.device.type, enabled=False):
            s = 1 + self.fc2(F.silu(self.fc1(t[:, None].to(self.fc1.weight.dtype))))
        s1, s2, s3 = s.chunk(3, dim=-1)
        return s1, s2, s3


class RecurrentBlock(nn.Module):
    """One tied block of a surrogate.

    With factors s1, s2, s3 of the depth index t and LayerScale gammas::

        x <- x + s1 * gamma1 * attention(norm1(x))
        x <- x + s2 * gamma2 * mlp(norm2(x))
        return s3 * x

    Under autocast the residual stream stays in float32, since x and the factors are float32.

    Parameters
    ----------
    config
        Shape and options.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.config = config
        D = config.width
        self.norm1 = nn.LayerNorm(D, eps=config.eps)
        self.attn = Attention(D, config.num_heads, config.rope, config.relative_bias)
        self.norm2 = nn.LayerNorm(D, eps=config.eps)
        self.mlp = MLP(D, round(D * config.mlp_ratio), config.mlp)
        scale = config.layer_scale
        self.gamma1 = None if scale is None else nn.Parameter(torch.full((D,), scale))
        self.gamma2 = None if scale is None else nn.Parameter(torch.full((D,), scale))
        self.depth = DepthScale(D) if config.depth_scaling else None
        self.recompute = (
            False  # compute once more in the backward pass what it needs of the inside, rather than keep it
        )
        self._compiled: Callable[[RecurrentBlock, Tensor, Factors], Tensor] | None = None

    def compile_inside(self, backend: str = "inductor") -> None:
        """Compile the block by itself: one graph for all depth indices, since they only enter as factors."""
        # not the bound method, with which a copy of the block would run the original's weights
        self._compiled = torch.compile(RecurrentBlock._inside, backend=backend)

    def factors(self, t: Tensor) -> list[Factors]:
        """Factors of the two branches (LayerScale included) and of the output at each depth index.

        They depend on nothing but t, so a rollout computes those of all its steps at once.

        Parameters
        ----------
        t
            Depth indices ``(n,)``.

        Returns
        -------
        list of Factors
            n triples of a factor ``(D,)``, or None where it is one.
        """
        scales = [None, None, None] if self.depth is None else self.depth(t)
        branches = [
            gamma if s is None else s if gamma is None else s * gamma
            for s, gamma in zip(scales, (self.gamma1, self.gamma2), strict=False)
        ]
        rows = [[f] * len(t) if f is None or f.ndim == 1 else f.unbind() for f in (*branches, scales[2])]
        return list(zip(*rows, strict=True))

    def forward(self, x_BND: Tensor, t: Tensor) -> Tensor:
        """Apply the block once.

        Parameters
        ----------
        x_BND
            Tokens ``(B, N, D)`` of layer t - 1.
        t
            Index of the layer being produced, 1..L: scalar tensor, or ``(B,)`` for one index per sample.

        Returns
        -------
        Tensor
            Tokens ``(B, N, D)`` of layer t.
        """
        if t.ndim == 0:
            return self.apply_once(x_BND, self.factors(t[None])[0])
        triples = zip(*self.factors(t), strict=True)
        rows = tuple(None if f[0] is None else torch.stack(f)[:, None] for f in triples)
        return self.apply_once(x_BND, rows)  # type: ignore[arg-type]

    def apply_once(self, x_BND: Tensor, factors: Factors) -> Tensor:
        """Apply the block with factors that :meth:`factors` gave, each broadcast over ``(B, N, D)``."""
        inside = self._compiled or RecurrentBlock._inside
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(inside, self, x_BND, factors, use_reentrant=False, preserve_rng_state=False)
        return inside(self, x_BND, factors)

    def teacher_forced(self, inputs: Sequence[Tensor], layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Produce several layers, each from the teacher's layer before it, in one batched call.

        Parameters
        ----------
        inputs
            The teacher's tokens ``(B, N, D)`` before each of the layers.
        layers
            Indices of the layers, as t of :meth:`forward`.

        Returns
        -------
        tuple of Tensor
            Predictions of the layers, each ``(B, N, D)``.
        """
        B = len(inputs[0])
        t = torch.tensor(list(layers)).to(inputs[0].device, non_blocking=True)  # or the host would wait for the device
        return self(torch.cat(list(inputs)), t.repeat_interleave(B)).split(B)

    def _inside(self, x_BND: Tensor, factors: Factors) -> Tensor:
        f1, f2, f3 = factors
        x = _add(x_BND, f1, self.attn(self.norm1(x_BND)))
        x = _add(x, f2, self.mlp(self.norm2(x)))
        return x if f3 is None else f3 * x


def _add(x: Tensor, factor: Tensor | None, branch: Tensor) -> Tensor:
    return x + branch if factor is None else x + factor * branch
