"""Jobs as processes on this machine, several at a time: ``hydra/launcher=local``."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from raptor.errors import LaunchError
from raptor.launching.job import JobSpec
from raptor.launching.options import LocalOptions
from raptor.launching.slurm import environment
from raptor.launching.workplace import CallFolder
from raptor.utils.distributed import STARTER

OUTPUT = "output.txt"  # of a job's process, in its folder
NOT_STARTED = -1000  # instead of an exit code
INTERRUPTED = tuple(128 + s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))  # exit codes
OF_OTHERS = ("SLURM_", "SUBMITIT_", STARTER)  # variables of an allocation, and of this process


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """List the GPUs that a process started here would see, as ``CUDA_VISIBLE_DEVICES`` names them."""
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
    call
        Folder of this launcher.
    """

    def __init__(self, options: LocalOptions, call: CallFolder) -> None:
        self.options, self.call = options, call
        gpus = visible_gpus() if options.gpus is None else [str(gpu) for gpu in options.gpus]
        self.at_a_time = options.jobs or len(gpus) or min(4, cores())
        self._gpus: queue.SimpleQueue[str] = queue.SimpleQueue()
        for i in range(self.at_a_time):
            self._gpus.put(gpus[i % len(gpus)] if gpus else "")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OF_OTHERS)}
        self._environment = {**inherited, **environment(call, snapshot=options.snapshot)}
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped_by: int | None = None

    def run(self, jobs: Sequence[JobSpec], side_by_side: int, on_end: Callable[[JobSpec, int], None]) -> list[int]:
        """Run jobs to their ends; a job that fails does not disturb the others.

        Parameters
        ----------
        jobs
            In the order of their start.
        side_by_side
            Jobs that share the cores. The same for every call, as another number of threads may round otherwise.
        on_end
            Called with each job that has ended and its exit code.

        Returns
        -------
        list of int
            Exit codes, in order; :data:`NOT_STARTED` of jobs that were not started before :meth:`stop`.
        """
        threads = self.options.threads or max(1, cores() // min(self.at_a_time, side_by_side))
        self._environment["OMP_NUM_THREADS"] = str(threads)
        with ThreadPoolExecutor(self.at_a_time) as workers:
            return list(workers.map(lambda job: self._run(job, on_end), jobs))

    def _run(self, job: JobSpec, on_end: Callable[[JobSpec, int], None]) -> int:
        folder, gpu = job.folder(), self._gpus.get()
        try:
            path = self.call.path / f"{folder.path.name}-{threading.get_ident()}.yaml"
            job.write(path)
            with (folder.path / OUTPUT).open("ab") as output, self._lock:
                if self.stopped_by is not None:
                    return NOT_STARTED
                process = subprocess.Popen(
                    [sys.executable, "-u", "-m", "raptor.launching.job", str(path.resolve())],
                    env=self._environment | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # Ctrl-C on a terminal reaches this process alone, which hands it on
                )
                self._processes.add(process)
            code = process.wait()
            self._processes.discard(process)
        finally:
            self._gpus.put(gpu)
        if code != 0 and folder.status().get("state") == "queued":  # it ended before it could record anything
            stopped = self.stopped_by is not None
            died = LaunchError.of("exit code", code, "0", f"read {OUTPUT} in the run folder")
            folder.fail(KeyboardInterrupt() if stopped else died)
        on_end(job, code)
        return code

    def stop(self, signum: int) -> int:
        """Hand a signal on to all jobs, which save and end; start no others.

        Returns
        -------
        int
            Jobs that run.
        """
        with self._lock:
            self.stopped_by, running = signum, list(self._processes)
        for process in running:
            process.send_signal(signum)
        return len(running)

    def kill(self) -> None:
        """End all processes at once."""
        with self._lock:
            for process in self._processes:
                process.kill()
