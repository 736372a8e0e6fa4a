"""What only a machine with a GPU reaches, without one: the device that is chosen, pinned memory."""

from __future__ import annotations

import pytest
import torch

from raptor.data.digits import Digits
from raptor.errors import ConfigError
from raptor.extraction.plan import choose_device
from raptor.models.teacher import Teacher, freeze
from raptor.tasks.distillation import phases
from raptor.utils.devices import default_device
from tests.elsewhere import DEVICE, elsewhere


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_processes_take_gpus_in_turn() -> None:
    assert [default_device(rank).index for rank in (0, 3, 4, 6)] == [0, 3, 0, 2]
    assert choose_device("auto", 5) == choose_device("cuda", 5) == torch.device("cuda", 1)
    assert choose_device("cpu", 5) == torch.device("cpu")
    with pytest.raises(ConfigError, match="device=tpu: expected a device of this machine"):
        choose_device("tpu", 0)


def test_without_a_gpu_there_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device(3) == choose_device("auto", 3) == torch.device("cpu")
    with pytest.raises(ConfigError, match="device=cuda: expected a device of this machine"):
        choose_device("cuda", 0)


def test_batches_are_pinned_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Digits()
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert data.loader([0]).pin_memory is there


def test_distances_of_layers_on_another_device(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher comes back, and the distance is that of the CPU."""
    freeze(teacher)
    data = Digits(batch_size=8)
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    here = phases.measure_distance(teacher, data, ["cls", "patches"], 32)
    with elsewhere(monkeypatch):
        monkeypatch.setattr(phases, "default_device", lambda rank: DEVICE)
        there = phases.measure_distance(teacher, data, ["cls", "patches"], 32)
        assert {p.device.type for p in teacher.parameters()} == {"cpu"}
    assert there == pytest.approx(here, rel=1e-5, abs=1e-7)
