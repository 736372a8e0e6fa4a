"""Measures by their formulas, known answers, and what a constant scores; streamed, and over several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raptor.models.tokens import TokenLayout
from raptor.tasks.distillation.fidelity import MEASURES, Comparison, Fidelity, Scores

LAYOUT = TokenLayout(1, 2, 4)
POSITIONS = {"cls": slice(0, 1), "registers": slice(1, 3), "patches": slice(3, 7)}


def layers(images: int = 9) -> Tensor:
    """Three layers of very different size, each token and channel with a mean of its own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, 7, 5, generator=generator) * torch.tensor([1.0, 3.0, 0.5])[:, None, None]
    return x + 2 * torch.randn(7, 5, generator=generator) + 1


def scores_of(preds: Tensor, targets: Tensor, start: Tensor | None = None) -> Scores:
    return compare(preds, targets, start).predictions


def compare(preds: Tensor, targets: Tensor, start: Tensor | None = None) -> Comparison:
    fidelity = Fidelity(LAYOUT, preds.shape[1], preds.shape[-1])
    for part in (slice(0, 4), slice(4, 5), slice(5, None)):
        fidelity.update(
            list(preds[part].unbind(1)), list(targets[part].unbind(1)), None if start is None else start[part]
        )
    comparison: Comparison = fidelity.compute()
    return comparison


def by_hand(y: np.ndarray, x: np.ndarray) -> dict[str, float]:
    """Of values ``(B, n, D)`` of one layer and token type."""
    mean = x.mean(0)
    a, b = x - mean, y - mean
    return {
        "r2": 1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum(),
        "cosine": ((x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).mean(),
        "r2_centered": 1 - ((x - y) ** 2).sum() / (a**2).sum(),
        "cosine_centered": (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()) if (b**2).sum() > 1e-9 else 0.0,
        "eps": np.sqrt(((x - y) ** 2).sum() / (x**2).sum()),
    }


@pytest.mark.parametrize("of", ["noisy", "scaled", "mean"])
def test_measures_equal_their_formulas_over_batches(of: str) -> None:
    targets = layers()
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    preds = {
        "noisy": targets + 0.4 * noise,
        "scaled": 0.8 * targets + 0.1,
        "mean": targets.double().mean(0, keepdim=True).expand_as(targets),
    }[of]
    measured = scores_of(preds, targets).curves
    for kind, where in POSITIONS.items():
        for layer in range(3):
            expected = by_hand(preds[:, layer, where].double().numpy(), targets[:, layer, where].double().numpy())
            for measure in MEASURES:
                assert measured[measure][kind][layer] == pytest.approx(expected[measure], abs=1e-9), (measure, kind)


def test_the_best_constant_is_scored_as_if_it_were_predicted() -> None:
    targets = layers()
    best = compare(targets, targets, targets[:, 0]).constant
    constant, mean = best.curves, targets.double().mean(0, keepdim=True).expand_as(targets)
    predicted = scores_of(mean, targets).curves
    assert best.official == pytest.approx(scores_of(mean, targets, targets[:, 0]).official)
    for measure in MEASURES:
        for kind in POSITIONS:
            assert constant[measure][kind] == pytest.approx(predicted[measure][kind], abs=1e-9), (measure, kind)
            if measure in ("r2_centered", "cosine_centered"):
                assert constant[measure][kind] == pytest.approx([0.0] * 3, abs=1e-12)
    assert min(constant["r2"]["patches"]) > 0.05  # which is what R2 about one scalar mean hides
    # any other constant is worse
    other = targets.mean(0, keepdim=True).expand_as(targets) + 0.1
    assert max(scores_of(other, targets).curves["r2_centered"]["patches"]) < 0


def test_perfect_is_one_and_layers_that_do_not_vary_are_all_or_nothing() -> None:
    targets = layers()
    targets[:, 1] = targets[:1, 1]  # the same for every image
    curves = scores_of(targets, targets).curves
    for measure in ("r2", "cosine", "r2_centered"):
        assert curves[measure]["patches"] == pytest.approx([1.0] * 3)
    assert curves["eps"]["cls"] == [0.0] * 3
    off = scores_of(targets + 0.1, targets).curves
    assert off["r2_centered"]["cls"][1] == off["cosine_centered"]["cls"][1] == 0.0
    bad = targets.clone()
    bad[0, 2, 0, 0] = torch.nan
    assert all(np.isnan(scores_of(*pair).curves["r2_centered"]["cls"][2]) for pair in ((bad, targets), (targets, bad)))


def test_a_large_channel_does_not_cost_digits() -> None:
    """Values of 1,000 with a spread of 1e-3, as activations with large channels have, and float32 input."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(400, 1, 7, 5, generator=generator, dtype=torch.float64)
    targets = (1000 + 1e-3 * spread).float()
    preds = (1000 + 1e-3 * (spread + 0.5 * torch.randn(spread.shape, generator=generator))).float()
    x, y = targets.double().numpy()[:, 0, 3:], preds.double().numpy()[:, 0, 3:]
    assert scores_of(preds, targets).curves["r2_centered"]["patches"][0] == pytest.approx(
        by_hand(y, x)["r2_centered"], abs=1e-4
    )


def test_official_variants_take_the_predictions_variance_and_pool_over_layers() -> None:
    targets, start = layers(), torch.randn(9, 7, 5)
    preds = targets + 0.4 * torch.randn_like(targets)
    x, y = targets.double().numpy(), preds.double().numpy()
    official = scores_of(preds, targets, start).official

    def r2(x: np.ndarray, y: np.ndarray) -> float:
        return float(1 - ((x - y) ** 2).mean() / (((y - y.mean()) ** 2).mean() + 1e-6))

    assert official["r2_official_end"] == pytest.approx(r2(x[:, -1], y[:, -1]), abs=1e-9)
    x0 = start.double().numpy()[:, None]
    pooled = r2(np.concatenate([x0, x], axis=1), np.concatenate([x0, y], axis=1))
    assert official["r2_official_pooled"] == pytest.approx(pooled, abs=1e-9)
    assert set(scores_of(preds, targets).official) == {"r2_official_end"}


def test_sums_of_several_processes_add_up() -> None:
    """What ``dist_reduce_fx="sum"`` does to the states of two processes."""
    targets = layers()
    preds = targets + 0.4 * torch.randn_like(targets)
    parts = [Fidelity(LAYOUT, 3, 5) for _ in range(2)]
    for fidelity, part in zip(parts, (slice(0, 4), slice(4, 9)), strict=True):
        fidelity.update(list(preds[part].unbind(1)), list(targets[part].unbind(1)), targets[part, 0])
    for name in parts[0]._defaults:
        assert parts[0]._reductions[name].__name__ == "dim_zero_sum"  # type: ignore[union-attr]
        getattr(parts[0], name).add_(getattr(parts[1], name))
    together, alone = parts[0].compute().predictions, scores_of(preds, targets, targets[:, 0])
    assert together.official == pytest.approx(alone.official)
    assert together.curves["r2_centered"]["cls"] == pytest.approx(alone.curves["r2_centered"]["cls"])
