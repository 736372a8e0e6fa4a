from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from raptor.data.digits import Digits
from raptor.models.block import BlockConfig
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase, phases_of
from raptor.tasks.distillation.losses import TokenMSE, WeightedTokenMSE
from raptor.tasks.distillation.task import Distillation


def fit(task: Distillation, steps: int, tmp_path: Path) -> pl.Trainer:
    data = Digits(batch_size=8)
    data.prepare((1, 8, 8), (0.3,), (0.4,), seed=task.seed)
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        gradient_clip_val=0.05,  # low enough to bite at every step
        default_root_dir=tmp_path,
    )
    trainer.fit(task, datamodule=data)
    return trainer


@pytest.fixture
def make(teacher: Teacher, block_config: BlockConfig) -> Callable[..., Distillation]:
    def build(phases: list[Phase], whole: bool = False, **options: Any) -> Distillation:
        blocks = PhaseBlocks(block_config, phases, seed=0)
        return Distillation(
            teacher=teacher,
            model=Surrogate.of_teacher(teacher, blocks) if whole else blocks,
            name="test",
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
            schedule=None,
            seed=0,
            **{"loss": TokenMSE(), **options},
        )

    return build


def test_blocks_trained_together_equal_blocks_trained_alone(make: Callable[..., Any], tmp_path: Path) -> None:
    phases = [Phase(0, 2), Phase(2, 4), Phase(1, 4)]
    together = make(phases, teacher_forcing=0.5, last_phase_loss=WeightedTokenMSE(0.3, 0.3, 0.4))
    fit(together, 12, tmp_path)
    for phase in phases:
        alone = make([phase], teacher_forcing=0.5, last_phase_loss=WeightedTokenMSE(0.3, 0.3, 0.4))
        fit(alone, 12, tmp_path)
        for name, weight in alone.model.of(phase).state_dict().items():
            assert torch.equal(weight, together.model.of(phase).state_dict()[name]), (phase, name)


def test_teacher_stays_as_it_was(make: Callable[..., Any], teacher: Teacher, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    task = make(phases_of([2], 4), whole=True)
    start = {name: tensor.clone() for name, tensor in task.model.blocks.state_dict().items()}
    fit(task, 3, tmp_path)
    task.train()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert any(not torch.equal(tensor, start[name]) for name, tensor in task.model.blocks.state_dict().items())


def test_loss_mixes_forcing_and_rollout_by_the_annealed_weight(make: Callable[..., Any], teacher: Teacher) -> None:
    task = make([Phase(1, 4)], teacher_forcing=0.25)
    (piece,) = task.model.students()
    x = teacher.embed(torch.randn(2, 1, 8, 8))
    acts = dict(enumerate([x, *teacher.steps(x)]))

    class FakeTrainer:
        max_steps = 400
        global_step = 0

    def mse(preds: list[Any], layers: range) -> torch.Tensor:
        return torch.stack([(p - acts[i]).square().mean() for p, i in zip(preds, layers, strict=True)]).mean()

    rollout = mse(list(piece.steps(acts[1])), range(2, 5))
    forced = mse([piece.block(acts[i - 1], torch.tensor(float(i))) for i in range(2, 5)], range(2, 5))
    for step, w in ((0, 1.0), (25, 0.75), (50, 0.5), (99, 0.01), (100, 0.0), (399, 0.0)):
        task._trainer = FakeTrainer()
        task._trainer.global_step = step
        assert task.forcing_weight() == pytest.approx(w)
        assert task.student_loss(piece, acts).item() == pytest.approx((w * forced + (1 - w) * rollout).item(), rel=1e-5)


def test_rollouts_grow_from_one_layer_to_the_whole_piece(make: Callable[..., Any], teacher: Teacher) -> None:
    task = make([Phase(0, 4)], rollout_growth=0.5)
    (piece,) = task.model.students()
    x = teacher.embed(torch.randn(2, 1, 8, 8))
    acts = dict(enumerate([x, *teacher.steps(x)]))

    class FakeTrainer:
        max_steps = 80
        global_step = 0

    def expected(length: int) -> float:
        errors = []
        for layer in range(1, 5):
            first = (layer - 1) // length * length  # the teacher's layer that this stretch begins with
            y = acts[first]
            for t in range(first + 1, layer + 1):
                y = piece.block(y, torch.tensor(float(t)))
            errors.append((y - acts[layer]).square().mean().item())
        return sum(errors) / 4

    found = []
    for step, length in ((0, 1), (10, 1), (11, 2), (20, 2), (21, 3), (39, 4), (40, 4), (79, 4)):
        task._trainer = FakeTrainer()
        task._trainer.global_step = step
        assert task.rollout_length(4) == length
        found.append(task.student_loss(piece, acts).item())
        assert found[-1] == pytest.approx(expected(length), rel=1e-5)
    assert found[0] != pytest.approx(found[-1], rel=1e-3)


@pytest.mark.parametrize(("whole", "growth", "stretch"), [(True, 0.0, 4), (True, 1.0, 2), (False, 0.0, 4)])
def test_noise_is_added_before_every_application(
    make: Callable[..., Any], teacher: Teacher, whole: bool, growth: float, stretch: int
) -> None:
    phases = phases_of([3], 4) if whole else [Phase(0, 4)]
    task = make(phases, whole=whole, teacher_forcing=1.0, rollout_growth=growth, input_noise=0.3)
    (piece,) = task.model.students()
    x = teacher.embed(torch.randn(2, 1, 8, 8))
    acts = dict(enumerate([x, *teacher.steps(x)]))

    class HalfWay:
        max_steps, global_step = 80, 40

    def applied(y: torch.Tensor, layer: int) -> torch.Tensor:
        return next(iter(piece.steps(y, layer - 1, layer)))

    def expected(sigma: float) -> float:
        torch.manual_seed(5)
        noise = lambda y: y + sigma * torch.randn_like(y)  # noqa: E731
        forced = [applied(y, layer) for layer, y in enumerate([noise(acts[i]) for i in range(4)], start=1)]
        rolled, y = [], x
        for layer in range(1, 5):
            y = applied(noise(acts[layer - 1] if (layer - 1) % stretch == 0 else y), layer)
            rolled.append(y)
        errors = [(p - acts[i]).square().mean() for way in (forced, rolled) for i, p in enumerate(way, start=1)]
        return torch.stack(errors).mean().item()

    task._trainer = HalfWay()
    torch.manual_seed(5)
    assert task.student_loss(piece, acts).item() == pytest.approx(expected(0.3), rel=1e-5)
    task.input_noise = 0.0
    state = torch.get_rng_state()
    assert task.student_loss(piece, acts).item() == pytest.approx(expected(0.0), rel=1e-5)
    torch.set_rng_state(state)
    task.student_loss(piece, acts)
    assert torch.equal(torch.get_rng_state(), state)  # without noise, nothing is drawn


def test_a_surrogate_of_the_teachers_own_layers_is_perfect(teacher: Teacher) -> None:
    """Scores of a rollout that is the teacher itself: R2 1, agreement 1, the teacher's own top-1."""

    class Perfect(torch.nn.Module):
        phase, name = Phase(0, 4), "0-4"

        def students(self) -> list[Any]:
            return [self]

        def steps(self, x: torch.Tensor, start: int = 0, end: int | None = None) -> Any:
            return teacher.steps(x, start, end)

        def parameters(self, recurse: bool = True) -> Any:
            return iter([torch.nn.Parameter(torch.zeros(1))])

    task = Distillation(
        teacher=teacher, model=Perfect(), loss=TokenMSE(), name="test", optimizer=torch.optim.SGD, schedule=None, seed=0
    )
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (metrics,) = trainer.validate(task, datamodule=data, verbose=False)
    assert metrics["val/agreement"] == 1.0
    assert metrics["val/top1"] == metrics["val/teacher_top1"]
    assert task.details()["layers"]["0-4"]["r2"]["patches"] == pytest.approx([1.0] * 4)
    assert metrics["val/r2_cls"] == pytest.approx(1.0)
