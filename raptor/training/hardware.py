"""What the processors of this machine can do: whether there is a GPU, and how fast bfloat16 is on the CPU."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator

from raptor.errors import ConfigError
from raptor.training.execution import check_compiler
from raptor.training.options import TrainerOptions

log = logging.getLogger(__name__)
CPUINFO = Path("/proc/cpuinfo")
BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16", "bf16": "Arm BF16"}  # Linux's names, the fastest first


def bf16_units(cpuinfo: Path = CPUINFO) -> list[str]:
    """List the instructions of this CPU for products of bfloat16 numbers, the fastest first.

    Parameters
    ----------
    cpuinfo
        What Linux says of the processor. Empty elsewhere: nothing is known.
    """
    try:
        lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeError):
        return []
    flags = set(lines[0].split()) if lines else set()
    return [name for flag, name in BF16.items() if flag in flags]


def check_hardware(trainer: TrainerOptions) -> None:
    """Refuse a GPU or a compiler that is not there, and warn where bfloat16 makes a training slower.

    Raises
    ------
    ConfigError
        If the trainer needs a GPU and torch finds none, or compiles and there is no compiler.
    """
    if trainer.accelerator in ("gpu", "cuda"):
        kinds = [CUDAAccelerator] if trainer.accelerator == "cuda" else [CUDAAccelerator, MPSAccelerator]
        if not any(kind.is_available() for kind in kinds):
            expected = "a GPU that torch can use, this machine has none"
            fix = "set trainer=cpu, or run this where there is one (hydra/launcher=slurm; nvidia-smi shows the driver)"
            raise ConfigError.of("trainer.accelerator", trainer.accelerator, expected, fix)
    elif trainer.accelerator == "cpu" and trainer.precision == "bf16-mixed" and not bf16_units():
        log.warning(
            "trainer.precision=bf16-mixed: this CPU has no instructions for bfloat16 (%s), so it is slower than "
            "trainer=cpu, which computes in float32",
            " or ".join(BF16.values()),
        )
    if trainer.compile:
        check_compiler(trainer.accelerator)
