"""SLURM's queue: which jobs there are, and which wait for others."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence

from raptor.errors import LaunchError

log = logging.getLogger(__name__)

SETTLE = 90.0  # seconds, for jobs that are ending


def states() -> Mapping[str, str] | None:
    """Return the states of the user's jobs by id (``JOB`` or ``ARRAY_TASK``); None if SLURM does not answer.

    Jobs that have ended stay listed for a while.
    """
    if shutil.which("squeue") is None:
        return None
    try:
        listed = subprocess.run(
            ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T"],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("squeue does not answer: %s", error)
        return None
    return dict(line.split(maxsplit=1) for line in listed.splitlines() if " " in line)


def settled(ids: Collection[str]) -> Mapping[str, str]:
    """Return the states once none of these jobs is about to end.

    Raises
    ------
    LaunchError
        If SLURM does not answer: jobs that it may still run must not be submitted again.
    """
    end = time.monotonic() + SETTLE
    while True:
        queue = states()
        if queue is None:
            raise LaunchError.of(
                "squeue", None, "an answer: some of these jobs may be in SLURM's queue", "try again later"
            )
        ending = [ident for ident in ids if queue.get(ident) == "COMPLETING"]
        if not ending or time.monotonic() > end:
            return queue
        log.info("%d jobs are ending", len(ending))
        time.sleep(2.0)


def wait_also(ids: Collection[str], after: Sequence[str]) -> None:
    """Let jobs that wait in the queue wait for others, too."""
    for ident in ids:
        command = ["scontrol", "update", f"JobId={ident}", f"Dependency=afterany:{':'.join(after)}"]
        changed = subprocess.run(command, capture_output=True, text=True, check=False)
        if changed.returncode:
            log.info("%s does not wait for what was submitted now: %s", ident, changed.stderr.strip())
