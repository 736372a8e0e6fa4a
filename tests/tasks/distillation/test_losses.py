import numpy as np
import pytest
import torch

from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout
from raptor.tasks.distillation.fidelity import Fidelity
from raptor.tasks.distillation.losses import CenteredMSE, TokenMSE, VarianceScaledMSE, WeightedTokenMSE

LAYOUT = TokenLayout(1, 2, 4)


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_weighted_loss_is_the_sum_over_types(lead: tuple[int, ...]) -> None:
    pred, target = torch.randn(*lead, 7, 5), torch.randn(*lead, 7, 5)
    error = ((pred - target) ** 2).numpy()
    expected = 0.45 * error[..., :1, :].mean() + 0.1 * error[..., 1:3, :].mean() + 0.45 * error[..., 3:, :].mean()
    assert WeightedTokenMSE(0.45, 0.1, 0.45)(pred, target, LAYOUT).item() == pytest.approx(float(expected), rel=1e-5)
    assert TokenMSE()(pred, target, LAYOUT).item() == pytest.approx(float(np.mean(error)), rel=1e-5)


def test_loss_is_float32_whatever_comes_in() -> None:
    pred, target = torch.randn(2, 7, 5).bfloat16(), torch.randn(2, 7, 5)
    for loss in (TokenMSE(), WeightedTokenMSE(0.3, 0.3, 0.4)):
        assert loss(pred, target, LAYOUT).dtype == torch.float32


def test_a_type_without_weight_does_not_count_and_may_be_absent() -> None:
    loss = WeightedTokenMSE(0.5, 0.0, 0.5)
    pred, target = torch.randn(3, 7, 5), torch.randn(3, 7, 5)
    moved = pred.clone()
    moved[:, 1:3] += 7
    assert loss(pred, target, LAYOUT) == loss(moved, target, LAYOUT)
    loss.check(TokenLayout(1, 0, 4), "task.loss")
    with pytest.raises(ConfigError, match=r"numbers >= 0"):
        WeightedTokenMSE(-1, 0, 1)


@pytest.mark.parametrize("kind", [WeightedTokenMSE, VarianceScaledMSE])
def test_weights_of_absent_types_are_spread_over_the_others(
    kind: type[WeightedTokenMSE], caplog: pytest.LogCaptureFixture
) -> None:
    layout = TokenLayout(1, 0, 4)
    pred, target = torch.randn(3, 5, 6), torch.randn(3, 5, 6)
    with caplog.at_level("INFO"):
        loss = kind(0.4, 0.2, 0.6)
        loss.check(layout, "task.loss")
    assert caplog.messages == [
        "task.loss: this teacher has no registers tokens, so their weight 0.2 is spread over the others: cls 0.48, "
        "patches 0.72"
    ]
    assert loss(pred, target, layout).item() == pytest.approx(kind(0.48, 0.0, 0.72)(pred, target, layout).item())
    assert loss.weights_for(TokenLayout(0, 0, 4)) == {"patches": pytest.approx(1.2)}
    caplog.clear()
    with caplog.at_level("INFO"):
        kind(0.45, 0.0, 0.45).check(layout, "task.loss")
        kind(0.45, 0.1, 0.45).check(TokenLayout(1, 2, 4), "task.loss")
    assert not caplog.messages
    assert kind(0.45, 0.1, 0.45).weights_for(LAYOUT) == {"cls": 0.45, "registers": 0.1, "patches": 0.45}
    with pytest.raises(ConfigError, match=r"task\.loss=.*registers:1.*: expected a weight .*cls, patches\. Fix: set"):
        kind(0, 1, 0).check(layout, "task.loss")


def test_variance_scaled_loss_is_the_weighted_sum_of_one_minus_r2() -> None:
    scales = torch.tensor([1.0, 9.0, 9.0, 0.1, 0.1, 0.1, 0.1])[:, None]
    target = scales * torch.randn(3, 7, 5) + 2
    pred = target + 0.3 * scales * torch.randn(3, 7, 5)
    expected = 0.0
    for weight, tokens in ((0.5, slice(0, 1)), (0.2, slice(1, 3)), (0.3, slice(3, 7))):
        x, y = target[:, tokens].double().numpy(), pred[:, tokens].double().numpy()
        expected += weight * float(((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    loss = VarianceScaledMSE(0.5, 0.2, 0.3)
    assert loss(pred, target, LAYOUT).item() == pytest.approx(expected, rel=1e-4)
    bigger = loss(100 * pred, 100 * target, LAYOUT).item()
    assert bigger == pytest.approx(expected, rel=1e-4)  # layers of any size count alike
    assert torch.isfinite(loss(pred, torch.ones_like(target), LAYOUT))  # a teacher without any variance


def test_centered_loss_is_one_minus_r2_centered() -> None:
    layout = TokenLayout(1, 0, 4)
    target = torch.randn(50, 5, 6) * torch.linspace(0.1, 3, 6) + 40 * torch.randn(5, 6)  # offsets that all images share
    pred = target + 0.3 * torch.randn(50, 5, 6)
    loss = CenteredMSE(0.5, 0.0, 0.5)(pred, target, layout).item()
    scores = Fidelity(layout, 1, 6)
    scores.update([pred], [target])
    r2 = scores.compute().predictions.curves["r2_centered"]
    expected = 0.5 * (1 - r2["cls"][0]) + 0.5 * (1 - r2["patches"][0])
    assert loss == pytest.approx(expected * 49 / 50, rel=1e-4)  # the unbiased variance, with n - 1
    mean = target.mean(0, keepdim=True).expand_as(target)
    assert CenteredMSE(1, 0, 1)(mean, target, layout).item() == pytest.approx(2 * 49 / 50, rel=1e-3)
    assert CenteredMSE(1, 0, 1)(pred[None], target[None], layout) == CenteredMSE(1, 0, 1)(pred, target, layout)


def test_whitening_counts_every_channel_alike() -> None:
    layout = TokenLayout(0, 0, 4)
    scales = torch.tensor([0.1, 1.0, 10.0])
    target = torch.randn(50, 4, 3) * scales
    for channel, scale in enumerate(scales):
        pred = target.clone()
        pred[..., channel] += scale
        assert CenteredMSE(0, 0, 1, whitening=1.0)(pred, target, layout).item() == pytest.approx(1 / 3, rel=0.3)
    loss = CenteredMSE(0, 0, 1)(target + torch.tensor([0.1, 0, 0]), target, layout)
    assert loss.item() < 2e-4


def test_a_token_that_all_images_share_gives_a_finite_loss() -> None:
    target = torch.ones(4, 5, 6)
    loss = CenteredMSE(0.5, 0, 0.5)(target + 0.1, target, TokenLayout(1, 0, 4))
    assert bool(loss.isfinite())
