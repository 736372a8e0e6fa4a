"""What a machine lacks is said in one message, before a teacher or a picture is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from raptor.errors import ConfigError
from raptor.training import hardware
from raptor.training.hardware import bf16_units, check_hardware
from raptor.training.options import TrainerOptions

ZEN4 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 clzero\n\nprocessor\t: 1\nflags\t\t: fpu\n"
SAPPHIRE_RAPIDS = "flags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile amx_int8\n"
SKYLAKE = "flags\t\t: fpu avx2 avx512f avx512_vnni\n"
GRAVITON3 = "Features\t: fp asimd bf16 i8mm\n"


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (ZEN4, ["AVX512_BF16"]),
        (SAPPHIRE_RAPIDS, ["AMX", "AVX512_BF16"]),
        (SKYLAKE, []),
        (GRAVITON3, ["Arm BF16"]),
        ("", []),
    ],
)
def test_bf16_units_of_a_processor(text: str, units: list[str], tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert bf16_units(file) == units


def test_no_units_are_known_without_linux(tmp_path: Path) -> None:
    assert bf16_units(tmp_path / "none") == []


def test_this_processor_is_seen_as_torch_sees_it() -> None:
    if not hardware.CPUINFO.exists():
        pytest.skip("not Linux")
    assert ("AVX512_BF16" in bf16_units()) == torch.cpu._is_avx512_bf16_supported()


@pytest.mark.parametrize(("text", "says"), [(SKYLAKE, True), (ZEN4, False), (SAPPHIRE_RAPIDS, False)])
def test_bf16_on_a_cpu_without_units_says_that_it_is_slower(
    text: str, says: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(hardware, "bf16_units", lambda: bf16_units(file))
    with caplog.at_level(logging.WARNING):
        check_hardware(TrainerOptions(max_steps=1, precision="bf16-mixed"))
        check_hardware(TrainerOptions(max_steps=1))  # float32 is never warned about
    assert ["slower than trainer=cpu" in record.getMessage() for record in caplog.records] == [True] * says


def test_a_gpu_that_is_not_there_is_one_message(
    call: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(kind, "is_available", staticmethod(lambda: False))
    with pytest.raises(SystemExit) as stopped:
        call("train", "trainer=gpu_bf16", "teacher=dinov2_vitl14_reg")  # whose weights would take a download
    (line,) = str(stopped.value).splitlines()
    assert line.startswith(
        "error: trainer.accelerator=gpu: expected a GPU that torch can use, this machine has none. Fix:"
    )
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=cuda: expected a GPU"):
        check_hardware(TrainerOptions(max_steps=1, accelerator="cuda"))


def test_any_gpu_of_lightning_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: False))
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    check_hardware(TrainerOptions(max_steps=1, accelerator="gpu"))
    with pytest.raises(ConfigError, match="accelerator=cuda"):
        check_hardware(TrainerOptions(max_steps=1, accelerator="cuda"))


def test_compiling_without_a_compiler_is_refused_before_a_teacher_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"trainer\.compile=true: expected a compiler"):
        check_hardware(TrainerOptions(max_steps=1, compile=True))
