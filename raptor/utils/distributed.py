"""Rank of this process among those of a job that several processes run together."""

from __future__ import annotations

import logging
import os

log = logging.getLogger(__name__)

STARTER = "RAPTOR_STARTER"  # process whose children Lightning starts as further ranks
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
PROCESS = "SLURM_PROCID"


def rank() -> int:
    """Return the number of this process among those of a job, before any library counts them; 0 if it is alone.

    A variable such as ``RANK`` counts only in a process that srun, torchrun or Lightning started as one of several. One
    that was left behind in the environment does not.
    """
    if _starter() == "srun":
        return _number(PROCESS)
    if _starter() == "torchrun":
        return _number("RANK")
    return _number("LOCAL_RANK") if _starter() == "Lightning" else 0


def _starter() -> str:
    if _number("SLURM_STEP_NUM_TASKS") > 1:
        return "srun"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    return "Lightning" if os.environ.get(STARTER) == str(os.getppid()) and _number("WORLD_SIZE") > 1 else ""


def claim_ranks() -> None:
    """Remove ranks left behind in the environment, and let those of processes that Lightning will start count.

    To be called before Lightning is imported, which reads them.
    """
    if not _starter():
        stale = {name: os.environ.pop(name) for name in RANKS if name in os.environ}
        if _number(PROCESS) > 0:  # Lightning needs it in a job of SLURM, where one process alone has 0
            stale[PROCESS], os.environ[PROCESS] = os.environ[PROCESS], "0"
        if stale:
            shown = ", ".join(f"{name}={value}" for name, value in stale.items())
            log.warning("%s: ignored, no launcher started this process as one of several", shown)
        os.environ[STARTER] = str(os.getpid())


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
