import math

import torch

from raptor.training.schedules import warmup_cosine


def rates(total: int, **options: float) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = warmup_cosine(optimizer, total_steps=total, **options)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_linear_rise_then_cosine_to_the_floor() -> None:
    found = rates(1000, warmup=0.1, min_lr=1e-6)
    for step in (1, 20, 50, 99):
        assert math.isclose(found[step], 3e-4 * step / 100, rel_tol=1e-4)
    for step in (100, 300, 550, 999, 1000):
        expected = 1e-6 + (3e-4 - 1e-6) * (1 + math.cos(math.pi * (step - 100) / 900)) / 2
        assert math.isclose(found[step], expected, rel_tol=1e-6)


def test_tiny_trainings_work() -> None:
    for total in (1, 2, 3, 5):
        assert all(0 <= rate <= 3e-4 + 1e-12 for rate in rates(total, warmup=0.5))
    assert rates(3, warmup=0.0)[0] == 3e-4
