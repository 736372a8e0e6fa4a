"""An independent implementation of the recurrent block in float64 NumPy, written from the paper's formulas."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x: Array, w: dict[str, Array], heads: int) -> Array:
    B, _, D = x.shape
    d = D // heads
    q, k, v = np.split(x @ w["attn.qkv.weight"].T + w["attn.qkv.bias"], 3, axis=-1)
    out = np.empty_like(x)
    for b in range(B):
        for h in range(heads):
            s = slice(h * d, (h + 1) * d)
            scores = q[b, :, s] @ k[b, :, s].T / math.sqrt(d)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, s] = weights / weights.sum(-1, keepdims=True) @ v[b, :, s]
    return out @ w["attn.proj.weight"].T + w["attn.proj.bias"]


def block(x: Array, t: float, w: dict[str, Array], heads: int, kind: str, eps: float = 1e-5) -> Array:
    """Layer t from layer t - 1, ``(B, N, D)``; w maps names of parameters to arrays."""
    D = x.shape[-1]
    s1 = s2 = s3 = np.ones(D)
    if "depth.fc1.weight" in w:
        hidden = silu(w["depth.fc1.weight"][:, 0] * t + w["depth.fc1.bias"])
        s = 1 + w["depth.fc2.weight"] @ hidden + w["depth.fc2.bias"]
        s1, s2, s3 = s[:D], s[D : 2 * D], s[2 * D :]
    gamma1, gamma2 = w.get("gamma1", np.ones(D)), w.get("gamma2", np.ones(D))
    x = x + s1 * gamma1 * attention(layer_norm(x, w["norm1.weight"], w["norm1.bias"], eps), w, heads)
    y = layer_norm(x, w["norm2.weight"], w["norm2.bias"], eps) @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    if kind == "swiglu":
        gate, value = y[..., : y.shape[-1] // 2], y[..., y.shape[-1] // 2 :]
        y = silu(gate) * value
    else:
        y = gelu(y)
    x = x + s2 * gamma2 * (y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"])
    return s3 * x
