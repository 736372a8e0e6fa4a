"""Which of several processes of a job this one is."""

from __future__ import annotations

import os


def rank() -> int:
    """Number of this process among those of a job, before any library counts them; 0 alone."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0
