"""Fill a store, shard by shard, by any number of processes at once."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from raptor.data.store.layout import MANIFEST, Store
from raptor.data.store.writing import ShardWriter, problem_of, verify
from raptor.errors import StoreError
from raptor.extraction.plan import Extraction
from raptor.utils.terminal import plain, progress_bars

log = logging.getLogger(__name__)


def check_disk_space(jobs: Sequence[Extraction]) -> dict[Extraction, int]:
    """Check that the disk holds what is still to be written, and count its samples for each store.

    Parameters
    ----------
    jobs
        What is to be written, on one disk; the stores need not exist.

    Raises
    ------
    StoreError
        If the disk cannot hold it.
    """
    todo = {
        job: Store(job.folder).samples_to_do() if (job.folder / MANIFEST).is_file() else len(job.images) for job in jobs
    }
    disk = jobs[0].folder.absolute()
    while not disk.exists():
        disk = disk.parent
    free, needed = shutil.disk_usage(disk).free, sum(n * job.nbytes for job, n in todo.items())
    if needed > free:
        whole = sum(len(job.images) * job.nbytes for job in jobs)
        expected = (
            f"a disk with {size(needed)} free for what is still to be written of {size(whole)} ({jobs[0].what}), "
            f"it has {size(free)}"
        )
        fix = "store fewer layers (layers=[...]), dtype=bfloat16 or content=pixels, or elsewhere (store=...)"
        raise StoreError.of("store", jobs[0].folder, expected, fix)
    for job, n in todo.items():
        all_of_it = f"{len(job.images):,} samples of {job.what}, {size(len(job.images) * job.nbytes)}"
        log.info("%s: %s; %s to write, %s free", job.folder, all_of_it, size(n * job.nbytes), size(free))
    return todo


def estimate(jobs: Sequence[Extraction]) -> None:
    """Check the space on the disk, then log how large the stores are and how long they take."""
    for job, todo in check_disk_space(jobs).items():
        if todo:
            time_needed = duration(todo * job.seconds_per_sample())
            log.info("%s: about %s for one process, writing not counted", job.folder, time_needed)


def size(nbytes: float) -> str:
    """Format bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.3g} TB"


def fill(job: Extraction, store: Store, first: int, on_progress: Callable[[int], object]) -> int:
    """Write the shards that no process has written or is writing.

    Parameters
    ----------
    job
        What to write.
    store
        Its store.
    first
        Shard to begin with; processes that begin apart seldom meet.
    on_progress
        Called with the number of samples after each batch.

    Returns
    -------
    int
        Samples written.
    """
    written = 0
    with _Claims(store, job.data.batch_size, first) as claims, ThreadPoolExecutor(1) as thread:
        waiting: Future[Any] | None = None  # one batch is written while the next is computed
        # the loader draws from the claims, so that what it was given is known by the time that it gives a batch
        for (pictures, labels, reasons), (samples, shard, last) in zip(
            _batches(job, claims), claims.issued(), strict=False
        ):
            batch = {**job.make(pictures), "label": torch.as_tensor(labels)}
            if waiting is not None:
                waiting.result()
            writer = claims.writer(shard)
            for sample, reason in zip(samples, reasons, strict=False):
                if reason:
                    job.data.report_skipped(reason)
                    writer.leave_out(sample, reason)
            waiting = thread.submit(writer.add, batch)
            if last:
                waiting.result()
                writer.commit()
                claims.release(shard)
            written += len(pictures)
            on_progress(len(pictures))
    return written


def _batches(job: Extraction, claims: _Claims) -> Iterator[tuple[Tensor, Any, Sequence[str]]]:
    """Images, labels and, with ``data.on_error=skip``, why each image cannot be used."""
    if job.data.on_error == "skip":
        yield from job.data.loader(job.attempts(), batch_sampler=claims, collate_fn=default_collate)
    else:
        for pictures, labels in job.data.loader(job.images, batch_sampler=claims):
            yield pictures, labels, ()


class _Claims:
    """Batches of samples of the shards that this process could claim, in order, with a record of which they were."""

    def __init__(self, store: Store, batch_size: int, first: int) -> None:
        self.store, self.batch_size = store, batch_size
        self.shards = sorted(store.pending(), key=lambda i: (i - first) % store.num_shards)
        self._issued: deque[tuple[list[int], int, bool]] = deque()
        self._held: dict[int, ExitStack] = {}
        self._writers: dict[int, ShardWriter] = {}

    def __enter__(self) -> _Claims:
        return self

    def __exit__(self, *error: object) -> None:
        for shard in list(self._held):
            self.release(shard)

    def __iter__(self) -> Iterator[list[int]]:
        for shard in self.shards:
            claim = ExitStack()
            if not claim.enter_context(self.store.hold(shard)) or self.store.is_done(shard):
                claim.close()
                continue
            self._held[shard] = claim
            samples = list(self.store.samples_of(shard))
            starts = range(0, len(samples), self.batch_size)
            for start in starts:
                batch = samples[start : start + self.batch_size]
                self._issued.append((batch, shard, start == starts[-1]))
                yield batch

    def issued(self) -> Iterator[tuple[list[int], int, bool]]:
        """Yield the samples of each batch, their shard, and whether the batch is its last one."""
        while self._issued:
            yield self._issued.popleft()

    def writer(self, shard: int) -> ShardWriter:
        """Return the writer of a claimed shard."""
        if shard not in self._writers:
            self._writers[shard] = self._held[shard].enter_context(ShardWriter(self.store, shard))
        return self._writers[shard]

    def release(self, shard: int) -> None:
        """Close what a shard needed, and release the claim."""
        self._writers.pop(shard, None)
        self._held.pop(shard).close()


def check(stores: Iterable[Store]) -> Iterator[tuple[Store, int, str]]:
    """Read every byte of stores; yield damaged and missing shards with what is wrong with them."""
    for store in stores:
        whole = True
        with progress_bars() as progress:
            bar = progress.add_task(plain(f"verify {store.path}").plain, total=store.num_shards)
            for shard, problem in verify(store, lambda _, bar=bar: progress.advance(bar)):  # type: ignore[misc]
                whole = False
                yield store, shard, problem
        if whole:
            log.info("%s: all %d shards are whole", store.path, store.num_shards)


def repair(stores: Iterable[Store]) -> None:
    """Remove damaged shards, so that they are made anew."""
    for store, shard, _ in check(stores):
        with store.hold(shard) as ours:
            if ours and (problem := problem_of(store, shard)):  # another process may have repaired it meanwhile
                log.warning("shard %d of %s: %s; it is made anew", shard, store.path, problem)
                store.drop(shard)


def duration(seconds: float) -> str:
    """Format seconds, rounded."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
