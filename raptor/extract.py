"""``python -m raptor.extract``: store images or the teacher's layers on disk, or verify such stores."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.errors import StoreError
from raptor.extraction.options import ExtractOptions
from raptor.runs.folder import RunFolder
from raptor.utils.signals import ignore_signals_in_worker

if TYPE_CHECKING:
    from raptor.data.store.layout import Store
    from raptor.extraction.plan import Extraction

log = logging.getLogger("raptor.extract")


def folder(options: ExtractOptions, config: DictConfig) -> RunFolder:
    """Make the folder in which the call keeps its status and log."""
    name = f"extract-{options.content}"
    return RunFolder(options, config, name, former_name=name, track_inputs=False, has_result=False)


@command(ExtractOptions, folder)
def main(options: ExtractOptions, run: RunFolder) -> None:
    """Fill the stores of a configuration, or say that they are full; ``verify`` only reads them."""
    with run.recording():
        extract(options)
        run.update(state="finished")


def extract(options: ExtractOptions) -> None:
    """Fill stores, or read them."""
    import torch

    from raptor.data.store.layout import Store
    from raptor.extraction.fill import check, estimate, repair
    from raptor.extraction.plan import plan

    if options.verify:
        problems = check(map(Store, options.folders().values()))
        damaged = [f"shard {shard} of {store.path}: {what}" for store, shard, what in problems]
        if damaged:
            shown = "; ".join(damaged[:20] + ["..."] * (len(damaged) > 20))
            expected = f"whole shards, {len(damaged)} are damaged or missing ({shown})"
            fix = "run the command that made the store with repair=true, which makes them anew"
            raise StoreError.of("store", options.store, expected, fix)
        return
    jobs = plan(options)
    try:
        estimate(jobs)
        stores = [job.open(options.shard_size) for job in jobs]
        if options.repair:
            repair(stores)
        if options.workers > 1:
            _watch(stores, torch.multiprocessing.spawn(_work, (options,), options.workers, join=False))
        else:
            _fill(jobs, options)
    except OSError as error:
        expected = f"a folder that can be written ({error})"
        raise StoreError.of("store", options.store, expected, "choose another store=..., or make room") from error
    for store in stores:
        if store.seal():
            log.info("%s: complete, %d samples in %d shards", store.path, store.samples, store.num_shards)
        else:
            log.info("%s: %d shards left to others, or to another call", store.path, len(store.pending()))


def _fill(jobs: list[Extraction], options: ExtractOptions, worker: int = 0) -> None:
    from raptor.extraction.fill import fill
    from raptor.utils.terminal import plain, progress_bars

    with progress_bars(disable=options.workers > 1) as progress:
        for job in jobs:
            store = job.open(options.shard_size)
            first = int(store.num_shards * (options.part + worker / options.workers) / options.parts)
            bar = progress.add_task(plain(job.folder).plain, total=store.samples_to_do())
            fill(job, store, first, lambda n, bar=bar: progress.advance(bar, n))  # type: ignore[misc]


def _work(worker: int, options: ExtractOptions) -> None:
    import torch

    from raptor.extraction.plan import plan

    ignore_signals_in_worker()
    os.environ["LOCAL_RANK"] = str(worker)
    torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
    _fill(plan(options), options, worker)


def _watch(stores: list[Store], workers: Any) -> None:
    from raptor.utils.terminal import progress_bars

    with progress_bars() as progress:
        bar = progress.add_task("samples", total=sum(store.samples for store in stores))
        while not workers.join(timeout=0.5):
            progress.update(bar, completed=sum(store.samples - store.samples_to_do() for store in stores))


if __name__ == "__main__":
    main()
