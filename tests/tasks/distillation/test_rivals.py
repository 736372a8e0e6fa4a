"""Rivals built for a teacher: equal parameters, known answers, and the way through task and probe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import raptor
from raptor.data.digits import Digits
from raptor.data.sources import Online
from raptor.errors import ConfigError
from raptor.models.options import BlockOptions, RivalOptions, SurrogateOptions
from raptor.models.rival import Rival
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import Teacher
from raptor.tasks.context import Context
from raptor.tasks.distillation.build import distill, finetune
from raptor.tasks.distillation.fidelity import Fidelity
from raptor.tasks.distillation.losses import TokenMSE
from raptor.tasks.distillation.rivals import count_parameters, solve_ridge

ARGUMENTS: dict[str, Any] = {"name": "t", "optimizer": torch.optim.SGD, "schedule": None, "loss": TokenMSE()}
TOLERANCE = 0.02  # of a plain block's parameters: exact to one hidden unit


@pytest.fixture
def data() -> Digits:
    data = Digits(batch_size=32)
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    return data


def build(teacher: Teacher, data: Digits, kind: str, seed: int = 0, **options: Any) -> Any:
    of_surrogate = {key: options.pop(key) for key in ("block", "init", "boundaries", "k") if key in options}
    rival = RivalOptions(kind=kind, images=64, **options)  # type: ignore[arg-type]
    surrogate = SurrogateOptions(**{"boundaries": [2], **of_surrogate}, rival=rival, label=kind)
    return finetune(Context(teacher, data, Online(), surrogate, seed), dict(ARGUMENTS), [])


def r2(task: Any, data: Digits) -> list[float]:
    images = data.normalize(torch.stack([data.val_images[i][0] for i in range(40)]))
    x = task.teacher.embed(images)
    fidelity = Fidelity(task.layout, task.teacher.num_layers, task.teacher.width)
    with torch.no_grad():
        fidelity.update(list(task.model.steps(x)), list(task.teacher.steps(x)))
    curves = fidelity.compute().predictions.curves["r2_centered"]
    return [value for kind in ("cls", "patches") for value in curves[kind]]


@pytest.mark.parametrize("kind", ["truncated", "pruned", "linear"])
def test_keeping_all_layers_scores_one(teacher: Teacher, data: Digits, kind: str) -> None:
    task = build(teacher, data, kind, layers=4, healed="none")
    assert r2(task, data) == pytest.approx([1.0] * 8, abs=1e-9)
    assert task.about["kept"] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"surrogate\.rival\.layers=5: expected at most 4"):
        build(teacher, data, kind, layers=5, healed="none")


def test_the_block_that_does_nothing_is_pruned_first(teacher: Teacher, data: Digits) -> None:
    for name, parameter in teacher.blocks[1].named_parameters():
        if "proj" in name or "fc2" in name:
            parameter.data.zero_()
    task = build(teacher, data, "pruned", layers=3, healed="none")
    assert task.about["kept"] == [1, 3, 4]
    assert task.about["influence"][1] == pytest.approx(0.0, abs=1e-9)
    assert r2(task, data)[2:4] == pytest.approx([1.0, 1.0], abs=1e-9)  # layers 3 and 4


def test_a_linear_network_is_matched_exactly(teacher: Teacher, data: Digits) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.3 * self.map(x)

    torch.manual_seed(0)
    for i in range(4):
        teacher.blocks[i] = Linear()
    task = build(teacher, data, "linear", layers=1, healed="none", ridge=1e-12, block=BlockOptions(num_heads=2))
    drop = next(stretch for stretch in task.model.stretches if stretch.operation == "linear")
    assert drop.end - drop.start == 3
    found = r2(task, data)
    assert [found[drop.end - 1], found[3], found[4 + drop.end - 1], found[7]] == pytest.approx([1.0] * 4, abs=1e-6)


def test_ridge_regression_equals_least_squares() -> None:
    torch.manual_seed(0)
    x, noise = torch.randn(300, 4) + 2, 0.1 * torch.randn(300, 4)
    y = x @ torch.randn(4, 4) + 5 + noise
    linear = solve_ridge(zip(x.split(70), y.split(70), strict=True), 1e-12)
    design = torch.cat([x, torch.ones(300, 1)], 1).double()
    expected = torch.linalg.lstsq(design, y.double()).solution
    assert torch.allclose(linear.weight.T.double(), expected[:4], atol=1e-4)
    assert torch.allclose(linear.bias.double(), expected[4], atol=1e-3)


@pytest.mark.parametrize("boundaries", [[], [2], [1, 3]])
def test_untied_blocks_have_the_parameters_of_tied_ones(teacher: Teacher, data: Digits, boundaries: list[int]) -> None:
    task = build(teacher, data, "untied", boundaries=boundaries)
    tied = task.about["tied_block_parameters"]
    plain = finetune(
        Context(teacher, data, Online(), SurrogateOptions(boundaries=boundaries), 0), dict(ARGUMENTS), []
    ).model
    assert isinstance(plain, Surrogate)
    assert tied == count_parameters(plain.blocks)
    assert count_parameters(task.model.blocks) == pytest.approx(tied, rel=TOLERANCE)
    assert task.model.matched == [*boundaries, 4]
    ceiling = build(teacher, data, "per_layer", boundaries=boundaries)
    assert (len(ceiling.model.blocks), ceiling.model.matched) == (4, [1, 2, 3, 4])


@pytest.mark.parametrize(("kind", "k"), [(kind, k) for kind in ("truncated", "pruned", "linear") for k in (2, 3)])
def test_rivals_of_the_digits_teacher_have_its_surrogates_parameters_within_ten_percent(kind: str, k: int) -> None:
    teacher, data = raptor.load("package:digits_vit"), Digits()
    data.prepare((1, 8, 8), (0.305,), (0.376,))
    boundaries, block = [5, 8][: k - 1], BlockOptions(layer_scale=0.1)
    task = build(teacher, data, kind, healed="none", boundaries=boundaries, block=block)
    assert count_parameters(task.model.blocks) == pytest.approx(task.about["tied_block_parameters"], rel=0.1)


def test_the_loss_counts_the_layers_that_are_matched(teacher: Teacher, data: Digits) -> None:
    x = teacher.embed(torch.randn(3, 1, 8, 8))
    acts = dict(enumerate([x, *teacher.steps(x)]))
    for matched, layers in (("ends", [2, 4]), ("all", [1, 2, 3, 4])):
        task = build(teacher, data, "untied", matched=matched)
        task.forcing_weight = lambda: 0.0
        preds = dict(enumerate(task.model.steps(x), start=1))
        expected = sum(nn.functional.mse_loss(preds[layer], acts[layer]) for layer in layers) / len(layers)
        assert torch.allclose(task.student_loss(task.model, acts), torch.as_tensor(expected))


def test_what_does_not_fit_is_refused(teacher: Teacher, data: Digits) -> None:
    surrogate = SurrogateOptions(boundaries=[2], rival=RivalOptions(kind="untied"))
    context = Context(teacher, data, Online(), surrogate, 0)
    with pytest.raises(ConfigError, match=r"surrogate\.rival=untied: expected null with task=distill"):
        distill(context, dict(ARGUMENTS))
    with pytest.raises(ConfigError, match=r"task\.blocks=\[x\]: expected null: a rival has no blocks of stage 1"):
        finetune(context, dict(ARGUMENTS), ["x"])
    for wrong in ({"kind": "untied", "healed": "none"}, {"kind": "untied", "layers": 2}):
        with pytest.raises(ValueError, match="kind=untied"):
            RivalOptions(**wrong)


@pytest.mark.slow
def test_a_rival_through_training_and_probe(call: Callable[..., None], tmp_path: Path) -> None:
    quiet = ["trainer.enable_progress_bar=false", "surrogate.boundaries=[5]", "task.floor_images=64"]
    runs, results = tmp_path / "runs" / "default", {}
    for choice, steps in {"untied": 2, "pruned_healed": 2, "linear": 0, "interpolated": 0}.items():
        call("train", f"surrogate={choice}", f"name={choice}", f"trainer.max_steps={steps}", *quiet)
        results[choice] = json.loads((runs / choice / "result.json").read_text())
        assert isinstance(raptor.load(runs / choice), Rival)
        call(
            *("train", "task=linear_probe", f"task.backbone={runs / choice}", f"name=probe-{choice}"),
            *("trainer.max_steps=2", "trainer.enable_progress_bar=false"),
        )
        probe = json.loads((runs / f"probe-{choice}" / "result.json").read_text())
        assert probe["model"]["backbone"]["label"] == f"k=2, {choice}"
    oracle = results["interpolated"]
    assert oracle["layers"]["0-12"]["r2_centered"]["cls"][4] == pytest.approx(1.0, abs=1e-9)
    assert oracle["metrics"]["val/top1"] == oracle["metrics"]["val/teacher_top1"]
    assert {len(result["floors"]) for result in results.values()} == {4}
    assert results["untied"]["floors"] == results["linear"]["floors"]
    with pytest.raises(SystemExit, match=r"trainer\.max_steps=3: expected 0: this model has nothing to train"):
        call("train", "surrogate=truncated", "name=wrong", "trainer.max_steps=3", *quiet)
