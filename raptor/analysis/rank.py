"""How many directions a set of updates takes."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(updates: Tensor) -> Tensor:
    """Squared singular values ``(..., min(n, D))`` of matrices ``(..., n, D)``, from the smaller Gram matrix."""
    U = updates.double()
    gram = U @ U.mT if U.shape[-2] <= U.shape[-1] else U.mT @ U
    return torch.linalg.eigvalsh(gram).clamp(min=0)


def stable_rank(powers: Tensor) -> Tensor:
    """Stable rank |U|_F^2 / |U|_2^2 from squared singular values ``(..., r)``; 0 for the zero matrix."""
    largest = powers.amax(dim=-1)
    return torch.where(largest > 0, powers.sum(dim=-1) / largest.clamp(min=torch.finfo(powers.dtype).tiny), 0.0)


def effective_rank(powers: Tensor) -> Tensor:
    """Effective rank, exp(entropy of the normalised singular values), from their squares ``(..., r)``.

    Roy and Vetterli, "The effective rank", 2007. Of the zero matrix it is 0. Values below 1e-7 of the
    largest are rounding error of a Gram matrix, and count as none.
    """
    s = powers.sqrt()
    s = torch.where(s > 1e-7 * s.amax(dim=-1, keepdim=True), s, 0.0)
    total = s.sum(dim=-1, keepdim=True)
    p = s / total.clamp(min=torch.finfo(s.dtype).tiny)
    entropy = -torch.special.xlogy(p, p).sum(dim=-1)
    return torch.where(total[..., 0] > 0, entropy.exp(), 0.0)
