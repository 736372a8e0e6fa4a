"""``python -m raptor.extract``: store images or the teacher's layers on disk, or verify such stores."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from raptor.cli.command import command
from raptor.errors import ConfigError, StoreError
from raptor.runs.folder import RunFolder
from raptor.utils.signals import leave_to_the_main_process

if TYPE_CHECKING:
    from raptor.data.store.layout import Store
    from raptor.extraction.plan import Extraction

log = logging.getLogger("raptor.extract")


def folder(config: DictConfig) -> RunFolder:
    """Where the call keeps its status and log."""
    if config.content not in config.default_store:
        raise ConfigError(f"content={config.content} is unknown; choose {', '.join(config.default_store)}")
    return RunFolder(config, default_name=f"extract-{config.content}", track_inputs=False, has_result=False)


@command("extract", folder)
def main(config: DictConfig, run: RunFolder) -> None:
    """Fill the stores of a configuration, or say that they are full; ``verify`` only reads them."""
    with run.recording():
        extract(config)
        run.update(state="finished")


def extract(config: DictConfig) -> None:
    """Fill stores, or read them."""
    import torch

    from raptor.data.store.layout import Store
    from raptor.extraction.fill import check, estimate, mend
    from raptor.extraction.plan import check_options, folders, plan

    check_options(config)
    if config.verify:
        found = check(map(Store, folders(config).values()))
        damaged = [f"shard {shard} of {store.path}: {what}" for store, shard, what in found]
        if damaged:
            shown = "\n  ".join(damaged[:20] + ["..."] * (len(damaged) > 20))
            raise StoreError(
                f"{len(damaged)} shards are damaged or missing:\n  {shown}\nTo make them anew, run the command that "
                "made the store again, with mend=true"
            )
        return
    jobs = plan(config)
    try:
        estimate(jobs)
        stores = [job.open(config.shard_size) for job in jobs]
        if config.mend:
            mend(stores)
        if config.workers > 1:
            plain = OmegaConf.to_container(config, resolve=True)
            _watch(stores, torch.multiprocessing.spawn(_work, (plain,), int(config.workers), join=False))
        else:
            _fill(jobs, config)
    except OSError as error:
        raise StoreError(f"store={config.store} cannot be written: {error}") from error
    for store in stores:
        if store.seal():
            log.info("%s: complete, %d samples in %d shards", store.path, store.samples, store.num_shards)
        else:
            log.info("%s: %d shards left to others, or to another call", store.path, len(store.pending()))


def _fill(jobs: list[Extraction], config: DictConfig, worker: int = 0) -> None:
    from rich.progress import Progress

    from raptor.extraction.fill import fill

    with Progress(transient=True, disable=config.workers > 1) as progress:
        for job in jobs:
            store = job.open(config.shard_size)
            first = int(store.num_shards * (config.part + worker / config.workers) / config.parts)
            bar = progress.add_task(str(job.folder), total=store.samples_to_do())
            fill(job, store, first, lambda n, bar=bar: progress.advance(bar, n))  # type: ignore[misc]


def _work(worker: int, config: dict[str, Any]) -> None:
    import torch

    from raptor.extraction.plan import plan

    leave_to_the_main_process()
    os.environ["LOCAL_RANK"] = str(worker)
    torch.set_num_threads(max(1, torch.get_num_threads() // config["workers"]))
    node = OmegaConf.create(config)
    _fill(plan(node), node, worker)


def _watch(stores: list[Store], workers: Any) -> None:
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        bar = progress.add_task("samples", total=sum(store.samples for store in stores))
        while not workers.join(timeout=0.5):
            progress.update(bar, completed=sum(store.samples - store.samples_to_do() for store in stores))


if __name__ == "__main__":
    main()
