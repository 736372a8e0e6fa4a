"""Labels and depth: losses and scores by hand, windows, oracles and noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from raptor.data.ade20k import IGNORED
from raptor.errors import ConfigError
from raptor.models.heads import DepthProbe, LinearProbe
from raptor.models.tokens import TokenLayout
from raptor.tasks.probes.depth import IGNORED as NO_BIN
from raptor.tasks.probes.depth import DepthProbing, DepthScores, depth_bins, eigen_crop, scale_invariant
from raptor.tasks.probes.segmentation import SegmentationProbing, windows
from tests.tasks.probes.probing import ADAM, GRID, PATCH, SIDE, Known, fit, greys, noise, oracle


def stripes(count: int = 40) -> tuple[Tensor, Tensor]:
    """Images of four vertical stripes of grey 0..3, and labels that are the grey but for a row without any."""
    rng = torch.Generator().manual_seed(0)
    columns = torch.randint(0, 4, (count, GRID), generator=rng).repeat_interleave(PATCH, dim=1)
    images = columns[:, None].expand(-1, SIDE, -1)
    labels = images.clone()
    labels[:, 0] = IGNORED
    return images, labels


@pytest.mark.parametrize("make", [oracle, noise])
@pytest.mark.parametrize("flip", [False, True])
def test_oracle_and_noise_on_labels(make: Callable[..., Any], flip: bool) -> None:
    images, labels = stripes()
    data = greys("labels", labels, images, 4)
    task = SegmentationProbing(make(4), data, {}, name="segmentation_probe", seed=0, flip=flip, **ADAM)
    torch.manual_seed(0)
    metrics = fit(task, data, 60)
    if make is oracle:
        assert metrics["val/miou"] == metrics["val/pixel_accuracy"] == 1.0
    else:
        assert metrics["val/miou"] < 1 / 4
        assert metrics["val/pixel_accuracy"] < 0.4


def test_miou_by_hand() -> None:
    images, labels = stripes(4)
    task = SegmentationProbing(oracle(4), greys("labels", labels, images, 4), {}, name="s", seed=0, **ADAM)
    scores = task.scores[0]
    target = torch.tensor([[[0, 0, 1, 1], [1, 1, IGNORED, IGNORED]]])
    answer = torch.tensor([[[0, 1, 1, 1], [1, 0, 0, 3]]])
    scores.update(torch.nn.functional.one_hot(answer, 4).movedim(-1, 1).float(), target)
    # class 0: one right of {2 labelled, 2 answered} = 1/3; class 1: 3 of 5; 2 is nowhere; 3 only where ignored
    assert float(scores.compute()["miou"]) == pytest.approx((1 / 3 + 3 / 5) / 2)
    assert float(scores.compute()["pixel_accuracy"]) == pytest.approx(4 / 6)
    # a class that is answered but never labelled counts as 0
    scores.update(
        torch.nn.functional.one_hot(torch.full((1, 1, 1), 2), 4).movedim(-1, 1).float(), torch.ones(1, 1, 1).long()
    )
    assert float(scores.compute()["miou"]) == pytest.approx((1 / 3 + 3 / 6 + 0) / 3)


def test_segmentation_loss_by_hand() -> None:
    images, labels = stripes(4)
    task = SegmentationProbing(oracle(4), greys("labels", labels, images, 4), {}, name="s", seed=0, **ADAM)
    raw = torch.zeros(2, GRID * GRID, 4)
    raw[1, :, 2] = 5.0
    target = torch.full((2, SIDE, SIDE), IGNORED)
    target[0, 0, 0], target[1, 0, :3] = 1, torch.tensor([2, 2, 3])
    right = torch.tensor([0.0, 0.0, 5.0, 0.0]).log_softmax(0)
    expected = -(torch.tensor(0.25).log() + 2 * right[2] + right[3]) / 4
    loss = task.losses(raw[None], target.to(torch.uint8))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(task.losses(raw[None], torch.full_like(target, IGNORED))) == 0.0


def test_a_strided_loss_sees_every_label_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = stripes(4)
    data = greys("labels", labels, images, 4)
    whole, strided = (SegmentationProbing(oracle(4), data, {}, name="s", seed=0, loss_stride=n, **ADAM) for n in (1, 2))
    raw = torch.randn(2, 4, GRID * GRID, 4)
    targets = labels[:, None].clone()
    targets[:, :, 0] = 0  # so that each of the four lattices has as many labels
    parts = []
    for step in range(4):
        monkeypatch.setattr(SegmentationProbing, "global_step", step)
        parts.append(strided.losses(raw, targets))
    assert not torch.allclose(parts[0], parts[3])
    torch.testing.assert_close(torch.stack(parts).mean(0), whole.losses(raw, targets))
    with pytest.raises(
        ConfigError, match=rf"task.loss_stride={PATCH + 1}: expected integer from 1 to {PATCH}, the side"
    ):
        SegmentationProbing(oracle(4), data, {}, name="s", seed=0, loss_stride=PATCH + 1, **ADAM)


def test_windows_cover_a_picture_and_end_at_its_edges() -> None:
    assert windows((16, 16), (16, 16), 2 / 3) == [(0, 0)]
    assert windows((16, 30), (16, 16), 2 / 3) == [(0, 0), (0, 7), (0, 14)]
    covered = torch.zeros(23, 41)
    for top, left in windows((23, 41), (16, 16), 2 / 3):
        covered[top : top + 16, left : left + 16] += 1
    assert covered.min() == 1
    with pytest.raises(ConfigError, match=r"data.evaluation=sliding: expected pictures of at least \[16, ?16\]"):
        windows((15, 16), (16, 16), 2 / 3)


def test_sliding_windows_see_all_of_a_larger_picture() -> None:
    images, labels = stripes(4)
    task = SegmentationProbing(oracle(4), greys("labels", labels, images, 4), {}, name="s", seed=0, **ADAM)
    task.sliding = True
    head = LinearProbe(4, 4)
    head.linear.weight.data, head.linear.bias.data = 20 * torch.eye(4), torch.zeros(4)
    wide = torch.arange(4).repeat_interleave(8).expand(1, 1, SIDE, -1).float()
    target = torch.zeros(1, 2 * SIDE, 64)
    (answer,) = task.predictions(wide, [head], target)
    assert answer.shape == (1, 4, 2 * SIDE, 64)
    assert torch.equal(answer.argmax(1)[0, 5], torch.arange(4).repeat_interleave(16))
    task.sliding = False
    (whole,) = task.predictions(wide[..., :SIDE], [head], target[..., :SIDE, :SIDE])
    raw = task.logits([head], task.extract(wide[..., :SIDE]))[0]
    assert torch.equal(whole, task.predict(head, raw, target[..., :SIDE, :SIDE]))


def test_depth_bins_by_hand() -> None:
    depth = torch.tensor([0.0, 1e-3, 2.5, 2.501, 10.0, 10.001, float("nan"), -1.0, float("inf"), 9.999])
    # ten bins over 1 mm to 10 m: each 0.9999 m wide
    assert depth_bins(depth, 10, 1e-3, 10.0).tolist() == [NO_BIN, 0, 2, 2, 9, NO_BIN, NO_BIN, NO_BIN, NO_BIN, 9]
    edges = 1.0 + torch.arange(5.0)
    assert depth_bins(edges, 4, 1.0, 5.0).tolist() == [0, 1, 2, 3, 3]


def test_bins_and_centres_agree() -> None:
    head = DepthProbe(2, 256, 1e-3, 10.0)
    assert depth_bins(head.centres(), 256, 1e-3, 10.0).tolist() == list(range(256))
    logits = torch.full((1, 256, 1), -30.0)
    logits[0, 40], logits[0, 41] = 30.0, 30.0
    assert float(head.depth(logits.movedim(1, -1).log_softmax(-1))) == pytest.approx(1e-3 + 41 * 9.999 / 256, rel=1e-4)


def test_scale_invariant_loss_by_hand() -> None:
    pred = torch.tensor([1.999, 3.999, 7.0, 5.0, 1.0])
    depth = torch.tensor([0.999, 0.999, 0.0, float("nan"), -2.0])
    a, b = torch.log(torch.tensor(2.0)), torch.log(torch.tensor(4.0))
    expected = (a**2 + b**2) / 2 - 0.85 * ((a + b) / 2) ** 2
    assert float(scale_invariant(pred, depth)) == pytest.approx(float(expected), rel=1e-5)
    assert float(scale_invariant(pred, torch.zeros(5))) == 0.0
    # a common factor costs 15 % of its squared logarithm
    assert float(scale_invariant(3 * pred[:2], pred[:2])) == pytest.approx(
        0.15 * float(torch.tensor(3.0).log()) ** 2, rel=1e-2
    )


def test_rmse_counts_the_eigen_crop_and_known_depth_only() -> None:
    assert eigen_crop((480, 640)) == (slice(45, 471), slice(41, 601))
    assert eigen_crop((48, 64)) == (slice(4, 47), slice(4, 60))
    depth = torch.full((2, 1, 480, 640), 2.0)
    pred = torch.full_like(depth, 100.0)  # wrong everywhere else
    pred[..., 45:471, 41:601] = 2.0
    pred[0, 0, 45, 41] = 5.0
    pred[1, 0, 470, 600] = 1.0
    for value, place in ((0.0, 50), (11.0, 51), (float("nan"), 52), (-1.0, 53)):
        depth[0, 0, 100, place], pred[0, 0, 100, place] = value, 9.0
    scores = DepthScores(1e-3, 10.0)
    scores.update(pred, depth)
    area = 426 * 560
    found = {name: float(value) for name, value in scores.compute().items()}
    assert found["rmse"] == pytest.approx(((9 + 1) / (2 * area - 4)) ** 0.5)
    assert found["rmse_images"] == pytest.approx(((9 / (area - 4)) ** 0.5 + (1 / area) ** 0.5) / 2)
    assert found["abs_rel"] == pytest.approx((1.5 + 0.5) / (2 * area - 4))
    assert found["delta1"] == pytest.approx(1 - 2 / (2 * area - 4))
    scores.reset()
    scores.update(torch.full((1, 1, 480, 640), 3.0), torch.full((1, 1, 480, 640), 2.0))
    assert float(scores.compute()["rmse"]) == pytest.approx(1.0)


def plates(count: int = 40) -> tuple[Tensor, Tensor]:
    """Images of one grey 0..3 each, and a depth in metres that is the middle of that bin of four over 0..8 m."""
    grey = (torch.arange(count) % 4)[:, None, None].expand(-1, SIDE, SIDE)
    return grey, (2.0 * grey + 1.0).unsqueeze(1)


@pytest.mark.parametrize("make", [oracle, noise])
def test_oracle_and_noise_on_depth(make: Callable[..., Any]) -> None:
    images, depth = plates()
    data = greys("depth", depth, images, 0)
    options: dict[str, Any] = {"bins": 4, "nearest": 0.0, "farthest": 8.0}
    torch.manual_seed(0)
    task = DepthProbing(make(4), data, {}, name="depth_probe", seed=0, **options, **ADAM)
    metrics = fit(task, data, 100)
    spread = float(depth.std())
    if make is oracle:
        assert metrics["val/rmse"] < 0.05
    else:
        assert 0.8 * spread < metrics["val/rmse"] < 1.5 * spread


def test_upsampling_commutes_with_the_head_and_padding_is_cut_off() -> None:
    images, depth = plates(4)
    backbone = Known(3, lambda grey: torch.stack([grey, grey.sin(), grey.cos()], dim=-1))
    data = greys("depth", depth, images, 0)
    task = DepthProbing(backbone, data, {}, name="depth_probe", seed=0, bins=5, **ADAM)
    (head,) = task.heads[:1]
    x = torch.randn(2, 1, SIDE, SIDE)
    tokens = backbone(x)
    joined = torch.cat([tokens[:, 1:], tokens[:, :1].expand(-1, GRID * GRID, -1)], dim=-1)  # [patch, cls]
    grid = joined.transpose(1, 2).unflatten(2, (GRID, GRID))
    finer = torch.nn.functional.interpolate(grid, scale_factor=4, mode="bilinear", align_corners=False)
    first = torch.nn.functional.conv2d(finer, head.linear.weight[:, :, None, None], head.linear.bias)
    ours = task._finer(task.logits([head], task.extract(x))[0])
    assert torch.allclose(first.movedim(1, -1).log_softmax(-1), ours, atol=1e-5)
    whole = task.predict(head, task.logits([head], task.extract(x))[0], torch.zeros(2, 1, SIDE, SIDE))
    part = task.predict(head, task.logits([head], task.extract(x))[0], torch.zeros(2, 1, 12, 14))
    assert torch.allclose(part, whole[:, :, 2:14, 1:15], atol=1e-6)


class Oblong(Known):
    """Three columns and two rows of patches of 4x4, padded around pictures of 6x10."""

    grid = (2, 3)
    input_shape = (1, 8, 12)
    layout = TokenLayout(1, 0, 6)


def test_depth_loss_by_hand_on_an_oblong_padded_picture() -> None:
    """Bins of 1 m over 0..4 m; each patch sure of a bin of its own; only two pixels have a depth."""
    images, depth = plates(4)
    task = DepthProbing(
        oracle(4), greys("depth", depth, images, 0), {}, name="d", seed=0, bins=4, nearest=0.0, farthest=4.0, **ADAM
    )
    task.backbone = Oblong(4, lambda grey: grey)
    head = DepthProbe(8, 4, 0.0, 4.0)
    sure = torch.tensor([[0, 1, 2], [3, 2, 1]])
    raw = 40.0 * torch.nn.functional.one_hot(sure.flatten(), 4)[None].float()
    target = torch.zeros(1, 1, 6, 10)
    # the picture begins at row 1, column 1 of the padded one: these lie at (1, 1) and (6, 10), in the outer
    # halves of the first and the last patch, where interpolation adds nothing
    target[0, 0, 0, 0], target[0, 0, 5, 9] = 0.7, 3.2
    bins = torch.tensor([0, 3])
    logits = 40.0 * torch.nn.functional.one_hot(torch.tensor([0, 1]), 4).float()
    # the fourfold grid is as fine as the picture here, so both pixels are points of it
    cross = torch.nn.functional.cross_entropy(logits, bins)
    a, b = (torch.log(torch.tensor(p) + 1e-3) - torch.log(torch.tensor(q) + 1e-3) for p, q in ((0.5, 0.7), (1.5, 3.2)))
    apart = (a**2 + b**2) / 2 - 0.85 * ((a + b) / 2) ** 2
    assert float(task.losses(raw[None], target)) == pytest.approx(float(10 * apart + cross), rel=1e-4)
    answer = task.predict(head, raw, target)
    assert answer.shape == (1, 1, 6, 10)
    assert answer[0, 0, 0, 0] == pytest.approx(0.5, abs=1e-3)
    assert answer[0, 0, 0, 9] == pytest.approx(2.5, abs=1e-3)
    assert answer[0, 0, 5, 0] == pytest.approx(3.5, abs=1e-3)


class Means(Known):
    """Each patch token is the mean of its patch: the position of its centre, where images are ramps."""

    def forward(self, images_BCHW: Tensor, layer: int | None = None) -> Tensor:
        patches = torch.nn.functional.avg_pool2d(images_BCHW, PATCH).flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)


@pytest.mark.parametrize("picture", [(16, 16), (16, 30), (21, 41)])
def test_windows_put_answers_where_the_picture_has_them(picture: tuple[int, int]) -> None:
    """Logits are the column of a picture that shows it; the labels are finer than the picture, by the same extent."""
    images, labels = stripes(4)
    task = SegmentationProbing(
        Means(1, lambda grey: grey), greys("labels", labels, images, 4), {}, name="s", seed=0, **ADAM
    )
    task.sliding = True
    head = LinearProbe(1, 4)
    head.linear.weight.data, head.linear.bias.data = torch.ones(4, 1), torch.zeros(4)
    columns = torch.arange(picture[1]).float().expand(1, 1, *picture)
    target = torch.zeros(1, 3 * picture[0] + 1, 3 * picture[1] + 2)
    (answer,) = task.predictions(columns, [head], target)
    width = target.shape[-1]
    expected = (torch.arange(width) + 0.5) * picture[1] / width - 0.5
    assert abs(float((answer - expected).detach().mean()) * width / picture[1]) < 0.02


def test_depth_is_read_off_where_the_picture_has_it() -> None:
    """Two bins, the share of the second is a column: depth is linear in it, on the grid and on the picture."""
    images, depth = plates(4)
    data = greys("depth", depth, images, 0)
    task = DepthProbing(oracle(4), data, {}, name="d", seed=0, bins=2, nearest=0.0, farthest=2.0, **ADAM)
    head = DepthProbe(8, 2, 0.0, 2.0)
    fine = 4 * GRID
    share = (torch.arange(fine) + 0.5) / fine
    logp = torch.stack([1 - share, share], dim=-1).log().expand(1, fine, fine, 2)
    for size in ((SIDE, SIDE), (12, 10)):
        left = (SIDE - size[1]) // 2
        columns = (task._depth(head, logp, size) - 0.5) * SIDE - 0.5 - left
        assert abs(float((columns - torch.arange(size[1])).detach()[..., 1:-1].mean())) < 0.02
        finer = task._coarser(torch.arange(size[1]).float().expand(1, *size) + 1, (2 * SIDE, 2 * SIDE))
        there = (torch.arange(2 * SIDE) + 0.5) / 2 - 0.5 - left
        assert abs(float((finer - 1 - there)[finer > 0].mean())) * 2 < 0.02
