"""Start ``python -m raptor.COMMAND`` by a fork of a process that has torch, timm and Lightning imported already.

Importing them takes seconds of computing in each of the hundred processes that the tests start. :func:`install` makes
``subprocess.Popen`` ask a server, which pytest's workers share, to fork instead of starting another interpreter, where
a command is one of this package's; all others are started as ever. The process has an id of its own and the exit code,
arguments, folder, environment, files and signals of one that was started; its package is imported afresh, from where
``PYTHONPATH`` says. Processes that it starts come from the same server.

``RAPTOR_COLD=1 python -m pytest`` starts all of them anew, as users do.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = "RAPTOR_WARM"  # environment variables: where the server's socket is; with _OWNER, whom the server ends with
COLDLY = "RAPTOR_COLD"  # environment variable: start interpreters, as users do
SCRIPTS = Path(__file__).parents[1] / "scripts"
PRELOAD = (
    *("hydra", "hydra._internal.hydra", "numpy", "omegaconf", "pandas", "PIL.Image", "pydantic", "rich.live"),
    *("pytorch_lightning", "pytorch_lightning.loggers", "rich.logging", "rich.table", "safetensors.torch"),
    *("scipy.optimize", "sklearn.datasets", "timm", "torch", "torch.utils.data", "torch.utils.flop_counter"),
    *("torchmetrics", "torchvision", "torchvision.transforms.v2", "xxhash", "yaml"),
)
PLAIN = {
    "executable": None,
    "preexec_fn": None,
    "pass_fds": (),
    "startupinfo": None,
    "creationflags": 0,
    "shell": False,
}
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
NAMES = (  # of what Popen hands to _execute_child
    *(
        "args",
        "executable",
        "preexec_fn",
        "close_fds",
        "pass_fds",
        "cwd",
        "env",
        "startupinfo",
        "creationflags",
        "shell",
    ),
    *(*PIPES, "restore_signals", "gid", "gids", "uid", "umask", "start_new_session", "process_group"),
)
COLD: type[Any] = subprocess.Popen


class Popen(COLD):
    """``subprocess.Popen`` that forks where it can; see the module."""

    _server: socket.socket | None = None

    def _execute_child(self, *values: Any) -> None:
        given = dict(zip(NAMES, values, strict=True))
        program = warm_program(given)
        if program is None:
            super()._execute_child(*values)
            return
        server = connect()
        job = {
            "program": program,
            "arguments": [os.fspath(a) for a in given["args"][list(map(str, given["args"])).index(program) + 1 :]],
            "cwd": str(Path(given["cwd"] or "").absolute()),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "session": bool(given["start_new_session"]),
            "group": given["process_group"],
            "parent": os.getpid(),
            "unbuffered": "-u" in given["args"],
        }
        files = [
            own if given[pipe] == -1 else given[pipe] for own, pipe in enumerate(("p2cread", "c2pwrite", "errwrite"))
        ]
        text = json.dumps(job).encode()
        socket.send_fds(server, [len(text).to_bytes(8, "big")], files)
        server.sendall(text)
        self.pid = int.from_bytes(receive(server, 8), "big")
        self._server, self._child_created = server, True
        self._close_pipe_fds(*(given[name] for name in PIPES))

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._server is None:
            found: tuple[int, int] = super()._try_wait(flags)
            return found
        self._server.setblocking(not flags & os.WNOHANG)
        try:
            status = receive(self._server, 8)
        except BlockingIOError:
            return 0, 0
        self._server.close()
        return self.pid, int.from_bytes(status, "big")

    def _internal_poll(self, *args: Any, **kwargs: Any) -> int | None:
        if self._server is None:
            code: int | None = super()._internal_poll(*args, **kwargs)
            return code
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def warm_program(given: dict[str, Any]) -> str | None:
    """The module or script of this package that a command runs, None for all else, and where a fork could not do it."""
    args, environment = given["args"], os.environ if given["env"] is None else given["env"]
    plain = all(given[name] == value for name, value in PLAIN.items()) and given["umask"] == -1
    if not (is_on() and plain and isinstance(args, list | tuple)) or COLDLY in environment or args[0] != sys.executable:
        return None
    match [str(arg) for arg in args[1:4]]:
        case ["-m", module, *_] | ["-u", "-m", module] if module.startswith("raptor."):
            return module
        case [script, *_] if Path(script).parent == SCRIPTS and script.endswith(".py"):
            return script
    return None


def receive(peer: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise RuntimeError("the server that forks processes for the tests is gone")
        data += part
    return data


def connect() -> socket.socket:
    """Connect to the server, and start it if nobody has."""
    folder = Path(os.environ[FOLDER])
    address, peer = folder / "socket", socket.socket(socket.AF_UNIX)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RANK", "LOCAL_RANK")}
            command = [sys.executable, "-P", __file__, str(folder), str(os.environ[f"{FOLDER}_OWNER"])]
            with (folder / "output").open("w") as output:
                process = COLD(command, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output)
            while not address.exists():
                if process.poll() is not None:
                    raise RuntimeError(f"the server that forks ended: {(folder / 'output').read_text()}")
                time.sleep(0.02)
            process.returncode = 0  # it outlives this process, and nobody waits for it
    peer.connect(str(address))
    return peer


def is_on() -> bool:
    """Whether processes are forked."""
    return FOLDER in os.environ and COLDLY not in os.environ


def seconds() -> list[float]:
    """How long each process that was forked and has ended computed."""
    record = Path(os.environ[FOLDER], "seconds")
    return list(map(float, record.read_text().split())) if record.exists() else []


def install() -> None:
    """Let ``subprocess`` fork from now on."""
    if is_on():
        subprocess.Popen = Popen  # type: ignore[misc]


def serve(folder: Path, owner: int) -> dict[str, Any]:
    """Fork a process for each job that comes; returns in those processes alone, with their job."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "new"))
    listener.listen(64)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    (folder / "new").rename(folder / "socket")  # from here on there is somebody to answer
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(reader, selectors.EVENT_READ)
    clients: dict[int, socket.socket] = {}
    while alive(owner):
        for key, _ in waiting.select(timeout=2):
            if key.fileobj is listener:
                client, _ = listener.accept()
                with contextlib.suppress(RuntimeError, OSError):
                    job, files = take(client)
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        waiting.close()
                        for other in (listener, reader, writer, client, *clients.values()):
                            other.close()
                        for target, file in enumerate(files):
                            os.dup2(file, target)
                            os.close(file)
                        return job
                    clients[pid] = client
                    for file in files:
                        os.close(file)
                    client.sendall(pid.to_bytes(8, "big"))
            else:
                with contextlib.suppress(BlockingIOError):
                    reader.recv(4096)
        while clients:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            with (folder / "seconds").open("a") as record:
                record.write(f"{used.ru_utime + used.ru_stime:.2f}\n")
            with contextlib.suppress(OSError):  # who asked may be gone
                clients[pid].sendall(status.to_bytes(8, "big"))
            clients.pop(pid).close()
    os._exit(0)


def alive(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def take(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive a job and its files."""
    size, files, _, _ = socket.recv_fds(client, 8, 3)
    return json.loads(receive(client, int.from_bytes(size, "big"))), files


def become(job: dict[str, Any], path: list[str]) -> None:
    """Run a job in this process as ``python -m`` would."""
    import runpy

    import numpy as np
    import torch

    if job["session"]:
        os.setsid()
    if job["group"] != -1:
        os.setpgid(0, job["group"])
    real = os.getppid
    os.getppid = lambda: job["parent"]
    os.register_at_fork(after_in_child=lambda: setattr(os, "getppid", real))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    np.random.seed()  # noqa: NPY002 (others than this package may use it)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    added = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [job["cwd"], *added, *path]
    sys.path_importer_cache.clear()
    program = job["program"]
    sys.argv = [program, *job["arguments"]]
    if job["unbuffered"]:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    if program.endswith(".py"):
        sys.path[0] = str(Path(program).parent)
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def main() -> None:
    """Import what takes long, then serve until the owner is gone."""
    import importlib

    for name in PRELOAD:
        importlib.import_module(name)
    path = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    subprocess.Popen = Popen  # type: ignore[misc]
    gc.collect()
    gc.freeze()
    become(serve(Path(sys.argv[1]), int(sys.argv[2])), path)


if __name__ == "__main__":
    main()
