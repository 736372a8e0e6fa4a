import numpy as np
import pytest
import torch

from raptor.models.tokens import TokenLayout
from raptor.tasks.distillation.fidelity import Baselines, Fidelity

LAYOUT = TokenLayout(1, 2, 4)
POSITIONS = {"cls": slice(0, 1), "registers": slice(1, 3), "patches": slice(3, 7)}


def test_r2_and_cosine_equal_their_formulas_over_batches() -> None:
    targets = torch.randn(9, 3, 7, 5) * torch.tensor([1.0, 3.0, 0.5])[:, None, None] + 2
    preds = targets + 0.4 * torch.randn_like(targets)
    fidelity = Fidelity(LAYOUT, 3)
    for p, t in zip(preds.split([4, 1, 4]), targets.split([4, 1, 4]), strict=True):
        fidelity.update(list(p.unbind(1)), list(t.unbind(1)))
    measured = fidelity.compute()
    for kind, where in POSITIONS.items():
        for layer in range(3):
            x, y = targets[:, layer, where].double().numpy(), preds[:, layer, where].double().numpy()
            r2 = 1 - ((x - y) ** 2).mean() / ((x - x.mean()) ** 2).mean()
            cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
            assert measured["r2"][kind][layer] == pytest.approx(r2, abs=1e-6)
            assert measured["cosine"][kind][layer] == pytest.approx(cosine.mean(), abs=1e-5)


def test_perfect_is_one_and_the_mean_is_zero() -> None:
    target = torch.randn(6, 7, 5)
    fidelity = Fidelity(LAYOUT, 1)
    fidelity.update([target], [target])
    assert fidelity.compute()["r2"]["patches"] == [1.0]
    fidelity.reset()
    fidelity.update([torch.full_like(target, target[:, 3:].mean().item())], [target])
    assert fidelity.compute()["r2"]["patches"] == [pytest.approx(0, abs=1e-6)]


def test_baselines_equal_the_fidelity_of_what_they_predict() -> None:
    layers = torch.randn(9, 4, 7, 5) * torch.tensor([1.0, 1.2, 3.0, 0.5])[:, None, None] + 2 * torch.randn(7, 5)
    predictions = {
        "embedding": layers[:, :1].expand(-1, 3, -1, -1),
        "mean": layers[:, 1:].mean(0).expand(9, -1, -1, -1),
    }
    baselines = Baselines(LAYOUT, 3, 5)
    for batch in layers.split([4, 1, 4]):
        baselines.update(list(batch.unbind(1)))
    measured = baselines.compute()
    for name, predicted in predictions.items():
        fidelity = Fidelity(LAYOUT, 3)
        fidelity.update(list(predicted.unbind(1)), list(layers[:, 1:].unbind(1)))
        for kind, values in fidelity.compute()["r2"].items():
            assert measured[name][kind] == pytest.approx(values, abs=1e-6)
