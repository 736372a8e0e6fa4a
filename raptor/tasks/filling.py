"""Filling a store, shard by shard, by any number of processes at once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch

from raptor.data.store.layout import MANIFEST, Store
from raptor.data.store.writing import ShardWriter
from raptor.errors import StoreError
from raptor.tasks.extraction import Extraction

log = logging.getLogger(__name__)


def check_room(job: Extraction) -> str:
    """How large a store is, and what of it is still to be written, if the disk can hold that.

    Parameters
    ----------
    job
        What is to be written; the store need not exist.

    Raises
    ------
    StoreError
        If the disk cannot hold it.
    """
    path, samples = job.folder, len(job.images)
    todo = samples
    if (path / MANIFEST).is_file():
        todo = Store(path).samples_to_do()
    disk = path.absolute()
    while not disk.exists():
        disk = disk.parent
    each, free = sum(field.nbytes for field in job.fields), shutil.disk_usage(disk).free
    whole = f"{samples:,} samples of {size(each)} = {size(samples * each)}"
    if todo * each > free:
        raise StoreError(
            f"store={path} would hold {whole}; {size(todo * each)} of that are still to be written, and the disk has "
            f"{size(free)} free. Nothing was written. Store fewer layers (layers=[...]), dtype=bfloat16 or "
            "content=pixels, or another place (store=...)"
        )
    return f"{whole}; {size(todo * each)} to write, {size(free)} free"


def size(nbytes: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.3g} TB"


def fill(job: Extraction, store: Store, first: int, tell: Callable[[int], object]) -> int:
    """Write the shards that nobody has written or is writing.

    Parameters
    ----------
    job
        What to write.
    store
        Its store.
    first
        Shard to begin with; processes that begin apart seldom meet.
    tell
        Called with the number of samples after each batch.

    Returns
    -------
    int
        Samples written.
    """
    written = 0
    with ExitStack() as held, ThreadPoolExecutor(1) as thread:
        claims = _Claims(store, job.data.batch_size, first, held)
        writer: ShardWriter | None = None
        waiting: Future[Any] | None = None  # one batch is written while the next is computed
        for (pictures, labels), (shard, last) in zip(
            job.data.loader(job.images, batch_sampler=claims), claims.issued(), strict=False
        ):
            batch = {**job.make(pictures), "label": torch.as_tensor(labels)}
            if waiting is not None:
                waiting.result()
            if writer is None or writer.index != shard:
                writer = held.enter_context(ShardWriter(store, shard))
            waiting = thread.submit(writer.add, batch)
            if last:
                waiting.result()
                writer.commit()
                claims.release(shard)
                log.debug("shard %d of %s written", shard, store.path)
            written += len(pictures)
            tell(len(pictures))
    return written


class _Claims:
    """Batches of samples of the shards that this process could claim, in order; also tells which they were."""

    def __init__(self, store: Store, batch_size: int, first: int, held: ExitStack) -> None:
        self.store, self.batch_size, self.held = store, batch_size, held
        pending = store.pending()
        self.shards = sorted(pending, key=lambda i: (i - first) % store.num_shards)
        self.claims: dict[int, ExitStack] = {}
        self._issued: list[tuple[int, bool]] = []

    def __iter__(self) -> Iterator[list[int]]:
        for shard in self.shards:
            claim = ExitStack()
            if not claim.enter_context(self.store.claim(shard)):
                claim.close()
                continue
            self.claims[shard] = self.held.enter_context(claim)
            samples = list(self.store.samples_of(shard))
            starts = range(0, len(samples), self.batch_size)
            for start in starts:
                self._issued.append((shard, start == starts[-1]))
                yield samples[start : start + self.batch_size]

    def issued(self) -> Iterator[tuple[int, bool]]:
        """Shard of each batch, and whether the batch is its last one."""
        i = 0
        while i < len(self._issued):
            yield self._issued[i]
            i += 1

    def release(self, shard: int) -> None:
        self.claims.pop(shard).close()


def duration(seconds: float) -> str:
    """Seconds, rounded for people."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
