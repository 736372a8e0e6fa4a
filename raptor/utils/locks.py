"""Locks between processes: flock where the file system has it, a marker file elsewhere.

A lock ends with its process. On a file system without flock the marker of a process that was killed stays behind: on
the same machine it is recognised and replaced, on another one the error names it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without flock answer
CONTENTION = (errno.EWOULDBLOCK, errno.EACCES)
PAUSE = 0.05  # seconds between two tries
YOUNG = 60.0  # seconds within which a process writes its name into its marker


@dataclass(frozen=True)
class Owner:
    """Process that holds a lock.

    Parameters
    ----------
    host, pid
        Machine and process id.
    born
        Start of the process in the kernel's count, which distinguishes it from a later one of the same id.
    since
        Time of the lock in seconds since 1970.
    """

    host: str
    pid: int
    born: str
    since: float

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        return cls(platform.node(), os.getpid(), _birth(os.getpid()), round(time.time(), 1))

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, as far as this machine can find out."""
        return self.host == platform.node() and _birth(self.pid) != self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, for {_duration(time.time() - self.since)}"


class BusyError(Exception):
    """A lock that another process holds.

    Parameters
    ----------
    path
        File to delete if that process is gone.
    owner
        That process, where it is known.
    """

    def __init__(self, path: Path, owner: Owner | None) -> None:
        super().__init__(f"{path} is locked by {owner or 'another process'}")
        self.path, self.owner = path, owner


class Lock:
    """An exclusive lock on a file, released at the latest when the process ends.

    Parameters
    ----------
    path
        File that is locked; created where it is missing.
    """

    _held: ClassVar[weakref.WeakSet[Lock]] = weakref.WeakSet()

    def __init__(self, path: Path) -> None:
        self.path, self._marker = path, _marker_of(path)
        self._file: int | None = None
        self._has_marker = False

    def acquire(self, timeout: float = 0.0) -> None:
        """Take the lock.

        Parameters
        ----------
        timeout
            Seconds to wait for another process.

        Raises
        ------
        BusyError
            If another process holds it.
        OSError
            If the file cannot be created.
        """
        end = time.monotonic() + timeout
        while not self._try():
            if time.monotonic() >= end:
                used = self._marker if self._marker.exists() else self.path
                raise BusyError(used, _read_owner(used))
            time.sleep(PAUSE)
        self._held.add(self)

    def release(self) -> None:
        """Give the lock back."""
        self._held.discard(self)
        if self._has_marker:
            self._marker.unlink(missing_ok=True)
            self._has_marker = False
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _try(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(file, self.path):  # somebody deleted it in between: the lock is on no file any more
                os.close(file)
                return self._try()
        except OSError as error:
            os.close(file)
            if error.errno in CONTENTION:
                return False
            if error.errno in UNSUPPORTED:
                return self._try_marker()
            raise
        with contextlib.suppress(OSError):  # the owner's name is for messages; a full disk must not forbid the lock
            os.ftruncate(file, 0)
            os.pwrite(file, _describe(), 0)
        self._file = file
        return True

    def _try_marker(self) -> bool:
        try:
            file = os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            owner = _read_owner(self._marker)
            if _is_abandoned(self._marker, owner):
                _remove_marker_of(owner, self._marker)
                return self._try_marker()
            return False
        with os.fdopen(file, "wb") as opened:
            opened.write(_describe())
        self._has_marker = True
        return True

    @classmethod
    def _forget_in_child(cls) -> None:
        """Close what a forked process inherited, so that the lock ends with the process that took it."""
        for lock in list(cls._held):
            if lock._file is not None:
                os.close(lock._file)
            lock._file, lock._has_marker = None, False
        cls._held.clear()


os.register_at_fork(after_in_child=Lock._forget_in_child)


def is_held(path: Path) -> bool | None:
    """Find out whether a process holds the lock at a path.

    Returns
    -------
    bool or None
        None where it cannot be found out: the file cannot be opened, or only its owner's machine could find out.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in CONTENTION:
            return True
        if error.errno not in UNSUPPORTED:
            return None
        marker = _marker_of(path)
        owner = _read_owner(marker)
        if owner is not None and owner.host != platform.node():
            return None
        return marker.exists() and not _is_abandoned(marker, owner)
    finally:
        os.close(file)
    return False


def _marker_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _is_at(file: int, path: Path) -> bool:
    try:
        there, ours = path.stat(), os.fstat(file)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _describe() -> bytes:
    return json.dumps(asdict(Owner.current())).encode()


def _read_owner(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _is_abandoned(marker: Path, owner: Owner | None) -> bool:
    """Whether the process of a marker is gone; one that names no process was left by a death, or by a full disk."""
    if owner is not None:
        return owner.is_gone
    try:
        return time.time() - marker.stat().st_mtime > YOUNG
    except FileNotFoundError:
        return False


def _remove_marker_of(owner: Owner | None, marker: Path) -> None:
    """Remove the marker of a process that is gone; that of one which was faster is put back."""
    taken = marker.with_name(f"{marker.name}.{platform.node()}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        marker.rename(taken)
        if _read_owner(taken) == owner:
            taken.unlink()
        else:
            taken.rename(marker)


def _birth(pid: int) -> str:
    """Boot of the machine and start of a process; empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot} {fields[18]}"  # a zombie works no more


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
