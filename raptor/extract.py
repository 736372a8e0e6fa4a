"""``python -m raptor.extract``: store images or the teacher's layers on disk, or verify such stores."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from raptor.cli import command
from raptor.errors import StoreError

if TYPE_CHECKING:
    from raptor.tasks.extraction import Extraction

log = logging.getLogger("raptor.extract")


@command("extract")
def main(config: DictConfig) -> None:
    """Fill the stores of a configuration, or say that they are full; with ``verify`` or ``mend`` check them."""
    import torch

    from raptor.tasks.extraction import check_options, folders

    check_options(config)
    stores = folders(config)
    if config.verify or config.mend:
        problems = [problem for folder in stores.values() for problem in check(folder, config.mend)]
        if problems and not config.mend:
            shown = "\n  ".join(problems[:20] + ["..."] * (len(problems) > 20))
            raise StoreError(
                f"{len(problems)} shards are damaged or missing:\n  {shown}\nTo make them anew, run the same command "
                "with mend=true in the place of verify=true"
            )
        if not config.mend:
            return
    jobs = _jobs(config)
    for job in jobs:
        _estimate(job, config)
    if config.workers > 1:
        plain = OmegaConf.to_container(config, resolve=True)
        workers = torch.multiprocessing.spawn(_work, (plain,), int(config.workers), join=False)
        _watch(jobs, config, workers)
    else:
        _fill(jobs, config)
    _report(jobs, config)


def check(folder: Path, mend: bool) -> list[str]:
    """Check every byte of a store, and with ``mend`` remove damaged shards; gives what was found."""
    from rich.progress import Progress

    from raptor.data.store.layout import MANIFEST, Store
    from raptor.data.store.writing import verify

    if mend and not (folder / MANIFEST).exists():
        return []
    store, problems = Store(folder), []
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"verify {folder}", total=store.num_shards)
        for shard, problem in verify(store, lambda _: progress.advance(bar)):
            problems.append(f"shard {shard} of {folder}: {problem}")
            if mend:
                log.warning("%s; it is made anew", problems[-1])
                store.drop(shard)
    if not problems:
        log.info("%s: all %d shards are whole", folder, store.num_shards)
    return problems


def _jobs(config: DictConfig) -> list[Extraction]:
    import torch
    from hydra.utils import instantiate

    from raptor.models.teacher import freeze
    from raptor.tasks.extraction import PIXELS, choose_device, choose_layers, folders, layers, pixels

    torch.manual_seed(config.seed)
    teacher = freeze(instantiate(config.teacher, _convert_="all"))
    made_of_pixels = config.content == PIXELS
    data = instantiate(config.data, _convert_="all", **({"pixels": None} if made_of_pixels else {}))
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    if made_of_pixels:
        return [pixels(folder, data, split) for split, folder in folders(config).items()]
    which = choose_layers(config.layers, teacher.num_layers)
    teacher.to(choose_device(config.device, rank=int(os.environ.get("LOCAL_RANK", 0))))
    return [
        layers(folder, data, split, teacher, which, config.dtype, config.precision)
        for split, folder in folders(config).items()
    ]


def _estimate(job: Extraction, config: DictConfig) -> None:
    from raptor.tasks.filling import check_room, duration

    room = check_room(job)
    todo = job.open(config.shard_size).samples_to_do()
    if todo:
        time_needed = duration(todo * job.seconds_per_sample())
        log.info("%s: %s; about %s for one process, writing not counted", job.folder, room, time_needed)


def _fill(jobs: list[Extraction], config: DictConfig, worker: int = 0) -> None:
    from rich.progress import Progress

    from raptor.tasks.filling import fill

    with Progress(transient=True, disable=config.workers > 1) as progress:
        for job in jobs:
            store = job.open(config.shard_size)
            first = int(store.num_shards * (config.part + worker / config.workers) / config.parts)
            bar = progress.add_task(str(job.folder), total=store.samples_to_do())
            fill(job, store, first, lambda n, bar=bar: progress.advance(bar, n))  # type: ignore[misc]


def _work(worker: int, config: dict[str, Any]) -> None:
    import torch

    os.environ["LOCAL_RANK"] = str(worker)
    torch.set_num_threads(max(1, torch.get_num_threads() // config["workers"]))
    node = OmegaConf.create(config)
    _fill(_jobs(node), node, worker)


def _watch(jobs: list[Extraction], config: DictConfig, workers: Any) -> None:
    from rich.progress import Progress

    stores = [job.open(config.shard_size) for job in jobs]
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"{config.workers} processes", total=sum(store.samples for store in stores))
        while not workers.join(timeout=0.5):
            progress.update(bar, completed=sum(store.samples - store.samples_to_do() for store in stores))


def _report(jobs: list[Extraction], config: DictConfig) -> None:
    for job in jobs:
        store = job.open(config.shard_size)
        if store.seal():
            log.info("%s: complete, %d samples in %d shards", job.folder, store.samples, store.num_shards)
        else:
            log.info("%s: %d shards are left to other processes, or to another call", job.folder, len(store.pending()))


if __name__ == "__main__":
    main()
