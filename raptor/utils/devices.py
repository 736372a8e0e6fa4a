"""The device that commands compute on where no trainer chooses one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def default_device(rank: int = 0) -> torch.device:
    """Return a GPU where torch finds one, else the CPU.

    Parameters
    ----------
    rank
        Number of this process: several share the GPUs of a machine in turn.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())
