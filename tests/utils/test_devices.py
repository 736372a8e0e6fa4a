"""What only a machine with a GPU reaches, without one: the device that is chosen, and the step on fake CUDA tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measure import Options
from benchmarks.step import Fixed, activations, new_blocks, random_teacher
from raptor.data.digits import Digits
from raptor.errors import ConfigError
from raptor.extraction.plan import choose_device
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.partition.phases import phases_of
from raptor.tasks.distillation import phases
from raptor.tasks.distillation.losses import WeightedTokenMSE
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


class Seen(TorchDispatchMode):
    """Record devices of the tensors of every operation, and the types of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()
        self.products: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, out)) if isinstance(x, Tensor)]
        self.devices |= {x.device.type for x in tensors if x.dim()}
        if "addmm" in str(func) or "scaled_dot_product" in str(func):
            self.products.add(out[0].dtype if isinstance(out, tuple) else out.dtype)
        return out


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, tensors of CUDA have shapes, types and devices, and no numbers."""
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args: True)
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda kind: True, raising=False)
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("forcing", [0.0, 0.5])
def test_a_step_on_cuda_stays_there_under_autocast(forcing: float) -> None:
    teacher = random_teacher(Options(torch.device("cuda"), quick=True))
    blocks = new_blocks(teacher, phases_of([7, 10], 12))
    surrogate: nn.Module = Surrogate.of_teacher(teacher, blocks)
    task = Fixed(teacher, surrogate, WeightedTokenMSE(0.45, 0.1, 0.45), top1=False, name="", **NONE)
    task.weight = forcing
    with torch.autocast("cuda", torch.bfloat16):
        acts = activations(teacher, 2)
        with Seen() as seen:
            loss = task.student_loss(task.students[0], acts)
            layers = list(task.students[0].steps(acts[0]))
    assert loss.dtype == torch.float32 and loss.device.type == "cuda"
    assert {x.dtype for x in layers} == {torch.float32}  # the residual stream
    assert seen.products == {torch.bfloat16, torch.float32}  # blocks; factors of depth
    assert seen.devices <= {"cuda", "cpu"}


NONE: dict[str, Any] = {"optimizer": None, "schedule": None, "seed": 0}
