"""Read samples of a store, each checked against its checksum."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from raptor.data.store.layout import CHECKSUMS, DTYPES, SHARD, Store, as_bytes, repair_command
from raptor.errors import StoreError
from raptor.utils.files import read_json

THREADS = 8  # that read one batch


class HostBuffer:
    """Reusable memory for one field of a batch, free again once no tensor references it.

    Fresh memory for every batch would cost the kernel more time than reading does.

    Parameters
    ----------
    nbytes
        Size.
    """

    def __init__(self, nbytes: int) -> None:
        self._memory = np.empty(nbytes, dtype=np.uint8)
        self._acquired: weakref.ref[np.ndarray] | None = None

    def is_free(self) -> bool:
        """Whether no tensor references it: a tensor's storage keeps the array that it was made from alive."""
        return self._acquired is None or self._acquired() is None

    def acquire(self) -> Tensor:
        """Return all of it as a tensor of bytes."""
        view = self._memory[:]
        self._acquired = weakref.ref(view)
        return torch.from_numpy(view)


class Reader:
    """Random access to the samples of a complete store.

    Parameters
    ----------
    path
        Folder of the store.

    Raises
    ------
    StoreError
        If there is no store, or shards are missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.store = Store(path)
        if not self.store.manifest.get("complete"):
            missing, total = len(self.store.pending()), self.store.num_shards
            expected = f"a complete store, {missing} of {total} shards are missing"
            raise StoreError.of("store", path, expected, "run python -m raptor.extract as before, which continues it")
        self._rows = {name: row for row, name in enumerate(self.store.fields)}
        self._sums: dict[int, np.ndarray] = {}
        self._buffers: dict[tuple[str, int], list[HostBuffer]] = {}

    def read(self, samples: Sequence[int], names: Sequence[str]) -> list[Tensor]:
        """Read some samples.

        Parameters
        ----------
        samples
            Which, in any order.
        names
            Fields to read.

        Returns
        -------
        list of Tensor
            For each field ``(len(samples), *shape)``.

        Raises
        ------
        StoreError
            If a shard that is touched is missing, truncated or changed.
        """
        out = [self._buffer(name, len(samples)) for name in names]
        # neighbours on disk go to one thread, one after the other
        order = sorted(range(len(samples)), key=samples.__getitem__)
        size = -(-len(order) // THREADS)
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        chunks = [(values, name, part) for values, name in zip(out, names, strict=True) for part in parts]

        def fill(chunk: tuple[Tensor, str, list[int]]) -> None:
            values, name, positions = chunk
            view, nbytes = as_bytes(values), self.store.fields[name].nbytes
            for i in positions:
                self._read_into(view[i * nbytes : (i + 1) * nbytes], name, samples[i])

        if len(samples) == 1:
            for chunk in chunks:
                fill(chunk)
        else:
            list(_threads(os.getpid()).map(fill, chunks))
        return out

    def _buffer(self, name: str, samples: int) -> Tensor:
        field, pool = self.store.fields[name], self._buffers.setdefault((name, samples), [])
        buffer = next((buffer for buffer in pool if buffer.is_free()), None)
        if buffer is None:
            buffer = HostBuffer(samples * field.nbytes)
            pool.append(buffer)
        return buffer.acquire().view(DTYPES[field.dtype]).view(samples, *field.shape)

    def _read_into(self, target: memoryview, name: str, sample: int) -> None:
        shard, inside = divmod(sample, self.store.shard_size)
        path = self.store.shard(shard) / f"{name}.bin"
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._broken(shard, f"{path.name} cannot be opened ({error.strerror})") from error
        try:
            count = os.preadv(file, [target], inside * len(target))
        finally:
            os.close(file)
        if count != len(target):
            raise self._broken(shard, f"{path.name} is truncated")
        if shard not in self._sums:
            try:
                self._sums[shard] = read_checksums(self.store, shard)
            except ValueError as error:
                raise self._broken(shard, str(error)) from error
        if xxhash.xxh3_64_intdigest(target) != self._sums[shard][self._rows[name], inside]:
            raise self._broken(shard, f"{path.name} has changed since it was written (its sample {inside})")

    def _broken(self, shard: int, what: str) -> StoreError:
        key, expected = f"shard {shard} of {self.store.path}", "the bytes that were written"
        return StoreError(f"{key}: expected {expected}, {what}. Fix: {repair_command(self.store)}.")


def read_checksums(store: Store, shard: int) -> np.ndarray:
    """Read the checksums of the samples of a shard, ``(fields, samples)`` uint64, once known to be as written.

    Raises
    ------
    ValueError
        Saying what is wrong with the shard.
    """
    folder = store.shard(shard)
    note = read_json(folder / SHARD)
    if note is None:
        raise ValueError("it is missing" if not folder.exists() else f"{SHARD} is missing or damaged")
    sealed = store.manifest["shards"][shard] if "shards" in store.manifest else note.get("checksum")
    try:
        data = (folder / CHECKSUMS).read_bytes()
        if not xxhash.xxh3_64_hexdigest(data) == note.get("checksum") == sealed:
            raise ValueError(f"{CHECKSUMS} or {SHARD} has changed since it was written")
        return np.load(folder / CHECKSUMS, allow_pickle=False)
    except (OSError, EOFError) as error:
        raise ValueError(f"{CHECKSUMS} cannot be read ({error})") from error


@lru_cache(maxsize=1)
def _threads(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="store")  # threads die in a fork: one pool for each pid
