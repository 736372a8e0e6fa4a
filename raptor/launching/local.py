"""Jobs as processes on this machine, several at a time: ``hydra/launcher=local``."""

from __future__ import annotations

import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from raptor.errors import ConfigError
from raptor.launching.job import FrozenJob
from raptor.launching.slurm import environment

OUTPUT = "output.txt"  # of a job's process, in its folder


@dataclass
class Local:
    """What is used of this machine: ``hydra/launcher=local``.

    Parameters
    ----------
    jobs
        Jobs at a time; None is one for each GPU, or else one for each core, four at most.
    threads
        Threads of each job; None shares the cores among as many jobs as there can be at a time.
    gpus
        GPUs that jobs get, one each; None is all that are visible.
    snapshot
        Whether jobs run a copy of the code as it was when they were started.
    """

    jobs: int | None = None
    threads: int | None = None
    gpus: list[str] | None = None
    snapshot: bool = True

    def __post_init__(self) -> None:
        for key in ("jobs", "threads"):
            value = getattr(self, key)
            if value is not None and not (isinstance(value, int) and value > 0):
                raise ConfigError(f"hydra.launcher.{key}={value} must be a whole number above 0, or null")
        self.gpus = visible_gpus() if self.gpus is None else [str(gpu) for gpu in self.gpus]
        self.jobs = self.jobs or len(self.gpus) or min(4, cores())

    def threads_for(self, jobs: int) -> int:
        """Threads of each of so many jobs."""
        assert self.jobs is not None
        return self.threads or max(1, cores() // min(self.jobs, jobs))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """GPUs that a process started here would see, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


class Pool:
    """A fixed number of jobs at a time, each in a process of its own.

    Parameters
    ----------
    options
        How many, and with what.
    folder
        For the copy of the code.
    """

    def __init__(self, options: Local, folder: Path) -> None:
        assert options.jobs is not None
        self.options = options
        self._gpus: queue.SimpleQueue[str] = queue.SimpleQueue()
        for i in range(options.jobs):
            self._gpus.put(options.gpus[i % len(options.gpus)] if options.gpus else "")
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SUBMITIT_"))
        }  # of an allocation
        self._environment = {**inherited, **environment(folder, options.snapshot)}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopping, self._lock = False, threading.Lock()

    def run(self, jobs: Sequence[FrozenJob], threads: int, ended: Callable[[FrozenJob, int], None]) -> Iterable[int]:
        """Run jobs to their ends; a job that fails does not disturb the others.

        Parameters
        ----------
        jobs
            In the order of their start.
        threads
            Of each.
        ended
            Called with each job that has ended and its exit code.

        Returns
        -------
        iterable of int
            Exit codes, in order.
        """
        self._environment["OMP_NUM_THREADS"] = str(threads)
        with ThreadPoolExecutor(self.options.jobs) as workers:
            try:
                return list(workers.map(lambda job: self._run(job, ended), jobs))
            except BaseException:
                self.stop()
                raise

    def _run(self, job: FrozenJob, ended: Callable[[FrozenJob, int], None]) -> int:
        folder, gpu = job.folder(), self._gpus.get()
        try:
            with tempfile.NamedTemporaryFile(suffix=".yaml") as file, (folder.path / OUTPUT).open("ab") as output:
                job.write(Path(file.name))
                with self._lock:
                    if self._stopping:
                        return 130
                    process = subprocess.Popen(
                        [sys.executable, "-u", "-m", "raptor.launching.job", file.name],
                        env=self._environment | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                    self._processes.add(process)
                code = process.wait()
                self._processes.discard(process)
        finally:
            self._gpus.put(gpu)
        ended(job, code)
        return code

    def stop(self) -> None:
        """End all processes; what they have saved is continued from by the next call."""
        with self._lock:
            self._stopping = True
            for process in list(self._processes):
                process.terminate()


def here() -> dict[str, object]:
    """Where a job waits that this process will start."""
    return {"host": platform.node(), "pid": os.getpid()}
