"""What all probes promise: K heads are K runs, frozen means frozen, selection looks only where it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from raptor.errors import ConfigError
from raptor.models.io import state_fingerprint
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.depth import DepthProbing
from raptor.tasks.probes.knn_ridge import Moments, knn_top1, ridge_top1
from raptor.tasks.probes.linear import LinearProbing
from raptor.tasks.probes.segmentation import SegmentationProbing
from raptor.tasks.probes.selection import BestHeads, HeadSpec, plan_heads
from tests.tasks.probes.probing import ADAM, SIDE, Greys, Known, fit, greys, noise, oracle

QUIET = [
    "trainer.enable_progress_bar=false",
    "task=linear_probe",
    "trainer.max_steps=40",
    "trainer.val_check_interval=10",
]


def heads_of(folder: Path) -> dict[str, Tensor]:
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.startswith("heads.")}


def test_stacked_heads_equal_separate_runs(call: Callable[..., None], tmp_path: Path) -> None:
    runs = tmp_path / "runs" / "default"
    common = [*QUIET, "trainer.gradient_clip_val=0.05", "task.cache=false"]
    rates = ("0.01", "0.001", "0.0001")
    call("train", *common, "name=all", f"task.learning_rates=[{','.join(rates)}]")
    together = heads_of(runs / "all")
    assert len(together) == 2 * 2 * len(rates)  # weight and bias; with and without the held-out tenth
    for j, rule in enumerate(("official", "held_out")):
        for i, rate in enumerate(rates):
            call("train", *common, f"name={rule}{i}", f"task.selection=[{rule}]", f"task.optimizer.lr={rate}")
            alone = heads_of(runs / f"{rule}{i}")
            for kind in ("weight", "bias"):
                ours = together[f"heads.{j * len(rates) + i}.linear.{kind}"]
                assert (ours - alone[f"heads.0.linear.{kind}"]).abs().max() < 1e-5
    result = json.loads((runs / "all" / "result.json").read_text())
    best = {rule: max(range(3), key=lambda i: _score(runs / f"{rule}{i}", rule)) for rule in ("official", "held_out")}
    for rule, i in best.items():
        (chosen,) = result["selection"][rule]
        assert chosen["learning_rate"] == float(rates[i])
        assert chosen["metrics"] == json.loads((runs / f"{rule}{i}" / "result.json").read_text())["metrics"]
    assert result["metrics"]["val/top1"] == result["selection"]["official"][0]["metrics"]["val/top1"]


def _score(folder: Path, rule: str) -> float:
    (chosen,) = json.loads((folder / "result.json").read_text())["selection"][rule]
    return float(chosen["selected_on"])


def test_cached_features_give_the_same_probe(call: Callable[..., None], tmp_path: Path) -> None:
    results = {}
    for cache in ("true", "false"):
        call("train", *QUIET, f"name=cache-{cache}", f"task.cache={cache}", "task.checks=[knn,ridge]")
        results[cache] = json.loads((tmp_path / "runs" / "default" / f"cache-{cache}" / "result.json").read_text())
    assert results["true"]["cached_features"] == ["val", "held_out", "train"]
    assert results["false"]["cached_features"] == []
    # kernels round by the shape of the batch, no more
    assert results["true"]["metrics"] == pytest.approx(results["false"]["metrics"], abs=1e-3)
    losses = [[value for _, value in result["history"]["train/loss"]] for result in results.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert min(results["true"]["metrics"].values()) > 0.9


def quarters(count: int = 64) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 4
    return labels[:, None, None].expand(-1, SIDE, SIDE), labels


@pytest.mark.parametrize("make", [oracle, noise])
def test_oracle_and_noise_on_classes(make: Callable[..., Any]) -> None:
    images, labels = quarters(400)
    data = greys("class", labels, images, 4)
    torch.manual_seed(0)
    task = LinearProbing(make(4), data, {}, name="linear_probe", seed=0, checks=["knn", "ridge"], **ADAM)
    metrics = fit(task, data, 40)
    for name in ("val/top1", "val/knn_top1", "val/ridge_top1"):
        assert metrics[name] == 1.0 if make is oracle else 0.15 < metrics[name] < 0.37


def test_the_start_is_epoch_0_and_the_last_step_is_judged() -> None:
    images, labels = quarters()
    data = greys("class", labels, images, 4)
    wrong = {
        "optimizer": lambda params: torch.optim.SGD(params, lr=1.0, maximize=True),
        "schedule": None,
    }  # climbs the loss
    task = LinearProbing(oracle(4), data, {}, name="linear_probe", seed=0, selection=["official", "last"], **wrong)
    for head in (*task.heads, *task.best.heads):
        head.linear.weight.data = torch.eye(4).repeat(1, 2)
    metrics = fit(task, data, 13, interval=5)
    assert metrics["val/top1"] == 1.0
    official, last = (task.details()["selection"][rule][0] for rule in ("official", "last"))
    assert (official["step"], official["last_step"]) == (0, 13)
    assert official["last_epoch"] == 6.5  # of two batches
    assert official["last_selected_on"] == last["metrics"]["val/top1"] < 1.0
    assert torch.equal(task.product.linear.weight, torch.eye(4).repeat(1, 2))  # type: ignore[union-attr, arg-type]


class Watched(Greys):
    """Counts how often each split was judged."""

    def eval_loader(self, split: str) -> Any:
        self.looked = [*getattr(self, "looked", []), split]
        return super().eval_loader(split)


def test_held_out_selection_looks_at_validation_once() -> None:
    images, labels = quarters()
    data = Watched(images, "class", labels, 4, batch_size=16)
    data.prepare((1, SIDE, SIDE), (0.0,), (1 / 255,))
    task = LinearProbing(oracle(4), data, {}, name="linear_probe", seed=0, selection=["held_out"], cache=False, **ADAM)
    fit(task, data, 20)
    assert data.looked == ["held_out", "val"]
    assert data.held_out is not None
    assert data.held_out.sum() == 4  # of 32: the least whole number above a tenth


def test_held_out_images_teach_nothing() -> None:
    images, labels = quarters()
    shuffled = labels.clone()
    data = greys("class", labels, images, 4)
    data.hold_out()
    assert data.held_out is not None
    shuffled[:32][torch.from_numpy(data.held_out)] = 0
    found = []
    for targets in (labels, shuffled):
        data = greys("class", targets, images, 4)
        task = LinearProbing(oracle(4), data, {}, name="p", seed=0, selection=["held_out", "last"], **ADAM)
        fit(task, data, 12)
        found.append({spec.holds_out: head.linear.weight for spec, head in zip(task.specs, task.heads, strict=True)})
    assert torch.equal(found[0][True], found[1][True])
    assert not torch.equal(found[0][False], found[1][False])


def test_groups_are_held_out_whole_and_always_the_same() -> None:
    class Grouped(Greys):
        def groups(self) -> list[int]:
            return [i // 4 for i in range(32)]

    images, labels = quarters()
    found = []
    for seed in (0, 1):
        data = Grouped(images, "class", labels, 4, batch_size=16)
        data.prepare((1, SIDE, SIDE), (0.0,), (1 / 255,), seed=seed)
        data.hold_out()
        assert data.held_out is not None
        found.append(data.held_out)
    assert np.array_equal(*found)
    assert set(found[0].reshape(8, 4).sum(1).tolist()) == {0, 4}
    assert found[0].sum() == 4


def test_the_best_epoch_is_the_first_best_one() -> None:
    heads = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
    nan = float("nan")
    cases = ((True, [0.1, 0.3, 0.3, 0.2], 1), (False, [nan, 0.3, 0.2, 0.2], 2), (False, [0.5, 0.4, nan], 1))
    for higher, scores, epoch in cases:
        best = BestHeads(heads, [HeadSpec(0, None, False)], higher_is_better=higher)
        for i, score in enumerate(scores):
            heads[0].weight.data.fill_(float(i))
            best.update(0, score, heads[0], step=10 * i)
        record = best.record(0, epoch=10)
        assert (record["epoch"], record["step"], record["last_epoch"]) == (epoch, 10 * epoch, len(scores) - 1)
        assert record["selected_on"] == pytest.approx(scores[epoch])
        assert best.heads[0].weight.item() == epoch


def test_official_and_last_share_their_heads() -> None:
    specs = plan_heads(["official", "last", "held_out"], [1, 2], [0.1])
    assert specs == [HeadSpec(s, 0.1, holds) for holds in (False, True) for s in (1, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": ["best"]}, r"task\.selection=\[best\]: expected a list of last, official, held_out"),
        ({"selection": ["last"], "learning_rates": [1.0, 2.0]}, "selects nothing"),
        ({"start": "head"}, "it has no linear head.*set teacher.head"),
        ({"start": "head", "head_seeds": 2}, "no linear head"),
        ({"checks": ["svm"]}, r"task\.checks=\[svm\]: expected a list of knn, ridge"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    images, labels = quarters()
    with pytest.raises(ConfigError, match=message):
        LinearProbing(oracle(4), greys("class", labels, images, 4), {}, name="p", seed=0, **ADAM, **options)


def test_a_probe_refuses_other_targets() -> None:
    images, labels = quarters()
    with pytest.raises(
        ConfigError, match="data=greys: expected data with class targets for task=linear_probe; it has depth targets"
    ):
        LinearProbing(oracle(4), greys("depth", labels, images, 4), {}, name="linear_probe", seed=0, **ADAM)


def test_any_layer_can_be_probed(call: Callable[..., None], tmp_path: Path) -> None:
    for layer in (1, 12):
        call("train", *QUIET, f"task.layer={layer}", f"name=l{layer}")
    first, last = (
        json.loads((tmp_path / f"runs/default/l{i}/result.json").read_text())["metrics"]["val/top1"] for i in (1, 12)
    )
    assert first < last - 0.2


def test_checks_without_a_seed_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]] * 5)
    y = torch.tensor([0, 0, 1, 1] * 5)
    val = (torch.tensor([[2.0, 0.1], [0.1, 3.0], [0.0, 0.2]]), torch.tensor([0, 1, 0]))
    assert knn_top1((x, y), val) == pytest.approx(2 / 3)
    assert ridge_top1((x, y), val) == pytest.approx(2 / 3)


def test_a_million_images_are_held_out_at_once() -> None:
    images, labels = quarters(4)
    data = greys("class", labels, images, 4)
    data.train_images = range(1_000_000)  # type: ignore[assignment]
    data.hold_out()  # a quadratic way would take an hour
    assert data.held_out is not None
    assert data.held_out.sum() == 100_000


KINDS: dict[str, tuple[type[Probe], dict[str, Any]]] = {
    "class": (LinearProbing, {}),
    "labels": (SegmentationProbing, {}),
    "depth": (DepthProbing, {"bins": 4, "nearest": 0.0, "farthest": 8.0}),
}


def task_of(kind: str, backbone: Any, rates: list[float], rules: list[str]) -> tuple[Probe, Greys]:
    images, labels = quarters()
    targets = {"class": labels, "labels": images.clone(), "depth": 2.0 * images[:, None] + 1}[kind]
    data = greys(kind, targets, images, 4)
    build, options = KINDS[kind]
    sgd = {"optimizer": lambda groups: torch.optim.Adam(groups, lr=0.1), "schedule": None}
    return build(backbone, data, {}, name=kind, seed=3, selection=rules, learning_rates=rates, **options, **sgd), data


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_heads_of_every_probe_equal_separate_runs(kind: str) -> None:
    rates = [0.1, 0.01]
    together, data = task_of(kind, oracle(4), rates, ["official", "held_out"])
    fit(together, data, 10)
    heads = iter(together.heads)
    for rule in ("official", "held_out"):
        for rate in rates:
            alone, data = task_of(kind, oracle(4), [rate], [rule])
            fit(alone, data, 10)
            head = next(heads)
            for ours, theirs in zip(head.parameters(), alone.heads[0].parameters(), strict=True):
                assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_heads_is_trained(kind: str) -> None:
    class Drifting(Known):
        """Would change with every batch, were it in training mode."""

        def __init__(self) -> None:
            super().__init__(4, lambda grey: torch.nn.functional.one_hot(grey.long(), 4).float())
            self.norm, self.drop = torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
            self.modes: set[bool] = set()

        def forward(self, images_BCHW: Tensor, layer: int | None = None) -> Tensor:
            self.modes.add(self.norm.training or self.drop.training or torch.is_grad_enabled())
            return self.drop(self.norm(super().forward(images_BCHW).transpose(1, 2))).transpose(1, 2)

    backbone = Drifting()
    task, data = task_of(kind, backbone, [0.1], ["official"])
    task.cache = False
    before = state_fingerprint(backbone)
    fit(task, data, 12, interval=4)
    assert state_fingerprint(backbone) == before
    assert backbone.modes == {False}
    (group,) = task.optimizers().param_groups  # type: ignore[union-attr]
    assert {id(p) for p in group["params"]} == {id(p) for p in task.heads.parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_heads_compute_in_float32_under_autocast(kind: str) -> None:
    task, data = task_of(kind, oracle(4), [0.1], ["official"])
    images, targets = data.on_after_batch_transfer(next(iter(data.eval_loader("val"))))
    heads: Any = list(task.heads)
    for head in heads:
        torch.nn.init.normal_(head.linear.weight, std=4.0)
    plain = task.predictions(images, heads, targets)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = task.predictions(images, heads, targets)[0]
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)  # the oracle's tokens are whole numbers, which bfloat16 holds


def test_closed_forms_agree_with_scikit_learn() -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(900) % 5
    x = torch.randn(900, 12, generator=rng) + 0.4 * torch.nn.functional.one_hot(y, 12)
    train, val = (x[:600], y[:600]), (x[600:], y[600:])
    weights = {"weights": lambda distance: np.exp((1 - distance) / 0.07)}
    knn = KNeighborsClassifier(20, metric="cosine", algorithm="brute", **weights).fit(*(t.numpy() for t in train))
    assert knn_top1(train, val) == pytest.approx(knn.score(*(t.numpy() for t in val)), abs=0.011)
    moments = Moments(*train, classes=5)
    weight, offset = moments.solve(10.0)
    ridge = make_pipeline(StandardScaler(), RidgeClassifier(10.0)).fit(*(t.numpy() for t in train))
    ours = (val[0].double() @ weight + offset).argmax(1)
    assert ours.tolist() == ridge.predict(val[0].numpy()).tolist()
    halves = Moments(x[:100], y[:100], 5) + Moments(x[100:600], y[100:600], 5)
    assert torch.allclose(halves.solve(10.0)[0], weight)
