"""Commands in children of this process, killed at chosen file operations, or in pairs."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

# what changes or makes a file; opening to read alone does not
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Count:
    """Count the operations of this process on files below a folder, and send itself a signal at one of them.

    Parameters
    ----------
    folder
        The folder.
    last
        Operation at which to do so, from 1 on; 0 counts only.
    signum
        The signal: SIGKILL ends the process at that operation.
    times
        How often, a moment apart.
    """

    def __init__(self, folder: Path, last: int, signum: int = signal.SIGKILL, times: int = 1) -> None:
        self.folder, self.last, self.signum, self.number = str(folder), last, signum, 0
        self.times = times
        self._fsync = os.fsync
        os.fsync = self.fsync  # type: ignore[assignment]
        sys.addaudithook(self.see)

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if not (isinstance(mode, str) and set(mode) & set("wax+")) and not (flags & WRITES):
                return
        elif event in EVENTS:
            path = args[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike) and str(Path(os.fsdecode(path)).absolute()).startswith(
            self.folder
        ):
            self.step()

    def fsync(self, file: Any) -> None:
        self.step()
        self._fsync(file)

    def step(self) -> None:
        self.number += 1
        if self.number == self.last:
            os.kill(os.getpid(), self.signum)
            for i in range(1, self.times):
                threading.Timer(0.2 * i, os.kill, (os.getpid(), self.signum)).start()


def command(name: str, arguments: Sequence[str]) -> None:
    """Run a command in this process, as a shell would."""
    GlobalHydra.instance().clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [name, *arguments]
    importlib.import_module(f"raptor.{name}").main()


def forked(function: Callable[[], Any], output: Path) -> int:
    """Call a function in a child, with what it prints in a file; returns the child's id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on warns wherever there are threads
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        code = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            os.write(2, f"{stop.code}\n".encode())
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def give_up_privileges() -> None:
    """Drop root's right to pass by the permissions of files, in this process; others have none to drop."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable capabilities, twice: all of them off
        assert ctypes.CDLL(None, use_errno=True).capset(header, data) == 0
