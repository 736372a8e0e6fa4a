"""Training step of the official recipe, written anew from its description: a baseline.

``nn.MultiheadAttention`` that returns weights which are not used, float32, one call for each layer, losses of token
types one by one, AdamW without fusing. The mathematics is that of :class:`raptor.models.block.RecurrentBlock`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raptor.models.block import RecurrentBlock
from raptor.models.surrogate import PhaseBlocks
from raptor.models.tokens import TokenLayout


class OfficialBlock(nn.Module):
    """Tied block of the official recipe with the weights of one of ours.

    Parameters
    ----------
    ours
        SwiGLU block with LayerScale and depth scaling, whose weights are copied.
    """

    def __init__(self, ours: RecurrentBlock) -> None:
        super().__init__()
        width, hidden = ours.config.width, ours.mlp.fc2.in_features
        assert ours.gamma1 is not None and ours.gamma2 is not None and ours.depth is not None
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=ours.config.eps), nn.LayerNorm(width, eps=ours.config.eps)
        self.attn = nn.MultiheadAttention(width, ours.config.num_heads, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.t_scale = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 3 * width))
        self.gamma1, self.gamma2 = (nn.Parameter(gamma.detach().clone()) for gamma in (ours.gamma1, ours.gamma2))
        theirs = (self.norm1, self.norm2, self.fc1, self.fc2, self.t_scale[0], self.t_scale[2], self.attn.out_proj)
        same = (ours.norm1, ours.norm2, ours.mlp.fc1, ours.mlp.fc2, ours.depth.fc1, ours.depth.fc2, ours.attn.proj)
        for module, source in zip(theirs, same, strict=True):
            module.load_state_dict(source.state_dict())
        with torch.no_grad():
            self.attn.in_proj_weight.copy_(ours.attn.qkv.weight)
            self.attn.in_proj_bias.copy_(ours.attn.qkv.bias)

    def forward(self, x_BND: Tensor, t: Tensor) -> Tensor:
        """Produce layer t, a tensor of one number."""
        s1, s2, s3 = (1 + self.t_scale(t)).chunk(3)
        h = self.norm1(x_BND)
        x = x_BND + s1 * self.gamma1 * self.attn(h, h, h)[0]
        gate, value = self.fc1(self.norm2(x)).chunk(2, dim=-1)
        return s3 * (x + s2 * self.gamma2 * self.fc2(F.silu(gate) * value))


class OfficialStep:
    """Training steps on given activations of the teacher.

    Parameters
    ----------
    blocks
        Ours, whose weights are copied.
    layout
        Token layout.
    weights
        Loss weights of cls, registers and patches; None is the plain mean squared error.
    lr
        Learning rate.
    """

    def __init__(
        self, blocks: PhaseBlocks, layout: TokenLayout, weights: dict[str, float] | None, lr: float = 3e-4
    ) -> None:
        device = next(blocks.parameters()).device
        self.phases = blocks.phases
        self.blocks = nn.ModuleList(OfficialBlock(block.block) for block in blocks).to(device)
        self.layout, self.weights = layout, weights
        self.t = [torch.tensor([float(layer)], device=device) for layer in range(self.phases[-1].end + 1)]
        self.optimizer = torch.optim.AdamW(self.blocks.parameters(), lr=lr, weight_decay=1e-4)

    def loss_of(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of one layer."""
        if self.weights is None:
            return F.mse_loss(pred, target)
        select = self.layout.select
        return torch.stack(
            [w * F.mse_loss(select(pred, kind), select(target, kind)) for kind, w in self.weights.items() if w]
        ).sum()

    def rollout(self, acts: Mapping[int, Tensor]) -> Tensor:
        """Compute the loss of the rollout over all phases, from the teacher's layer 0."""
        x, losses = acts[self.phases[0].start], []
        for block, phase in zip(self.blocks, self.phases, strict=True):
            for layer in range(phase.start + 1, phase.end + 1):
                x = block(x, self.t[layer])
                losses.append(self.loss_of(x, acts[layer]))
        return torch.stack(losses).mean()

    def teacher_forced(self, acts: Mapping[int, Tensor]) -> Tensor:
        """Compute the loss of teacher forcing."""
        losses = [
            self.loss_of(block(acts[layer - 1], self.t[layer]), acts[layer])
            for block, phase in zip(self.blocks, self.phases, strict=True)
            for layer in range(phase.start + 1, phase.end + 1)
        ]
        return torch.stack(losses).mean()

    def __call__(self, acts: Mapping[int, Tensor], forcing: float = 0.0) -> Tensor:
        """Train one step with this weight of teacher forcing; return the loss before it."""
        loss = (1 - forcing) * self.rollout(acts)
        if forcing > 0:
            loss = loss + forcing * self.teacher_forced(acts)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.blocks.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()
