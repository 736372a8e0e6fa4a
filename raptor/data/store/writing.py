"""Write shards of a store, whole or not at all, and find damaged ones."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import xxhash
from torch import Tensor

from raptor.data.store.layout import CHECKSUMS, LEFT_OUT, SHARD, Store, as_bytes
from raptor.data.store.reading import read_checksums
from raptor.errors import ConfigError
from raptor.utils.files import sync, write_json


class ShardWriter:
    """One shard being written, in a temporary folder until :meth:`commit` renames it.

    Parameters
    ----------
    store
        The store.
    index
        The shard; it must be claimed.
    """

    def __init__(self, store: Store, index: int) -> None:
        self.store, self.index = store, index
        host = platform.node()
        for left in (store.path / "shards").glob(f".{index:05d}.{host}.*.tmp"):  # of a process that died here
            shutil.rmtree(left, ignore_errors=True)
        self.tmp_path = store.path / "shards" / f".{index:05d}.{host}.{os.getpid()}.tmp"
        self.tmp_path.mkdir()
        self._files = {name: (self.tmp_path / f"{name}.bin").open("wb") for name in store.fields}
        self._sums: dict[str, list[int]] = {name: [] for name in store.fields}
        self._left_out: dict[int, str] = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        shutil.rmtree(self.tmp_path, ignore_errors=True)

    def add(self, batch: Mapping[str, Tensor]) -> None:
        """Append samples: for each field ``(B, *shape)`` of the field's dtype, on the CPU."""
        for name, field in self.store.fields.items():
            view = as_bytes(batch[name].contiguous())
            self._files[name].write(view)
            step = field.nbytes
            self._sums[name] += [xxhash.xxh3_64_intdigest(view[i : i + step]) for i in range(0, len(view), step)]

    def leave_out(self, sample: int, reason: str) -> None:
        """Note that what is added for a sample stands for a file that cannot be used."""
        self._left_out[sample] = reason

    def commit(self) -> None:
        """Flush everything to disk, then let the shard appear.

        Raises
        ------
        ValueError
            If samples are missing.
        """
        expected = len(self.store.samples_of(self.index))
        counts = {name: len(sums) for name, sums in self._sums.items()}
        if any(count != expected for count in counts.values()):
            fix = "add all samples of the shard before commit()"
            raise ConfigError.of(f"samples of shard {self.index}", counts, f"{expected} of each field", fix)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        sums = np.array(list(self._sums.values()), dtype=np.uint64)
        with (self.tmp_path / CHECKSUMS).open("wb") as file:
            np.save(file, sums, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        checksum = xxhash.xxh3_64_hexdigest((self.tmp_path / CHECKSUMS).read_bytes())
        left_out = {LEFT_OUT: self._left_out} if self._left_out else {}
        write_json(self.tmp_path / SHARD, {"samples": expected, "checksum": checksum, **left_out})
        if self.store.is_done(self.index):
            return  # where the file system has no locks, another process may have been faster
        shutil.rmtree(self.store.shard(self.index), ignore_errors=True)  # damaged: it has no shard.json
        self.tmp_path.rename(self.store.shard(self.index))
        sync(self.store.path / "shards")


def verify(store: Store, on_progress: Callable[[int], object] = lambda shard: None) -> Iterator[tuple[int, str]]:
    """Check every byte of a store.

    Parameters
    ----------
    store
        The store.
    on_progress
        Called with each shard once it is checked.

    Yields
    ------
    tuple of int and str
        A damaged or missing shard, and what is wrong with it.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for shard, problem in enumerate(threads.map(lambda i: problem_of(store, i), range(store.num_shards))):
            if problem:
                yield shard, problem
            on_progress(shard)


def problem_of(store: Store, shard: int) -> str | None:
    """Say what is wrong with a shard, None if every byte is as it was written."""
    try:
        sums = read_checksums(store, shard)
        for row, name in enumerate(store.fields):
            _verify_file(store, shard, name, sums[row])
    except ValueError as error:
        return str(error)
    return None


def _verify_file(store: Store, shard: int, name: str, sums: np.ndarray) -> None:
    path: Path = store.shard(shard) / f"{name}.bin"
    nbytes, samples = store.fields[name].nbytes, len(store.samples_of(shard))
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path.name} is missing") from error
    if size != nbytes * samples or len(sums) != samples:
        raise ValueError(f"{path.name} has {size} bytes instead of {nbytes * samples}")
    with path.open("rb") as file:
        for inside in range(samples):
            if xxhash.xxh3_64_intdigest(file.read(nbytes)) != sums[inside]:
                raise ValueError(f"{path.name} has changed since it was written (its sample {inside})")
