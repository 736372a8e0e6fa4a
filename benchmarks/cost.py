"""What Table 1 costs: ``python -m benchmarks.cost teacher=dinov2_vitl14_reg gpus=64``.

Operations of every job are counted on shapes; time is operations over what a GPU sustains. The keys:

    teacher    dinov2_vits14_reg, dinov2_vitb14_reg (default), dinov2_vitl14_reg, dinov2_vitg14_reg
    gpus       how many (default: 8, 64 and 512, side by side)
    tflops     TFLOP/s that one GPU sustains in a training step. The default of 300 is an assumption (45 % of 670, about
               what large bf16 products reach on an H100), not a measurement of this project: take it from
               python -m benchmarks step
    decode     JPEGs that one CPU core decodes, resizes and crops in a second (default 100; python -m benchmarks feed)
    cores      CPU cores for each GPU (default 12)
    disk       GB/s that one GPU can read from storage (default 1)
    check      true: predict steps on this machine from the time of one of them, measure them, print the error
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.operations import Operations, operations
from raptor.files import CONFIGS

IMAGENET, ADE20K, NYUV2 = 1_281_167, 20_210, 50_688  # training images
PHASES = [(0, 7), (7, 10), (0, 4), (4, 7), (10, 12), (7, 12)]  # of 12 layers; of others in the same shares
SEEDS, SURROGATES, BACKBONES = 3, 9, 11
PROBES: dict[str, tuple[int, int | tuple[int, int]]] = {
    "imagenet": (15 * IMAGENET, 224),
    "ade20k": (10 * ADE20K, 518),
    "nyuv2": (25 * NYUV2, (490, 644)),
}
KINDS: dict[str, Callable[[str], Any]] = {
    "teacher": str,
    "gpus": int,
    "cores": int,
    "check": {"true": True, "false": False}.__getitem__,
}
LEAST_BATCH = 8  # images for each GPU, below which its kernels are too small


@dataclass(frozen=True)
class Given:
    """The keys of the command line."""

    teacher: str = "dinov2_vitb14_reg"
    gpus: int | None = None
    tflops: float = 300.0
    decode: float = 100.0
    cores: int = 12
    disk: float = 1.0
    check: bool = False


@dataclass(frozen=True)
class Job:
    """One job of the table.

    Attributes
    ----------
    stage
        What it belongs to: jobs of a stage wait for those of the stage before.
    images
        That go through it.
    flops
        For each image.
    batch
        Images in a step.
    """

    stage: str
    images: float
    flops: float
    batch: int

    def hours(self, tflops: float) -> float:
        """On one GPU."""
        return self.images * self.flops / (tflops * 1e12) / 3600


def parse(arguments: Iterable[str]) -> Given:
    """Keys and values of the command line.

    Raises
    ------
    SystemExit
        On a key or value that does not exist, and for help.
    """
    known = {field.name: field for field in fields(Given)}
    values: dict[str, Any] = {}
    for argument in arguments:
        if argument in ("-h", "--help"):
            sys.exit(__doc__)
        key, _, value = argument.partition("=")
        if key not in known:
            sys.exit(f"error: {argument}: unknown; the keys are {', '.join(known)}, each as KEY=VALUE")
        try:
            values[key] = KINDS.get(key, float)(value)
        except (ValueError, KeyError):
            sys.exit(f"error: {argument}: no value that {key} can have")
        if key not in ("teacher", "check") and values[key] <= 0:
            sys.exit(f"error: {argument}: must be above 0")
    return Given(**values)


def jobs(name: str, together: bool = False) -> list[Job]:
    """All jobs of Table 1 with the sizes of the paper's recipe; ``together`` trains six phases in one run."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["experiment=table1/surrogates"])
    images, batch = config.recipe.steps * config.recipe.batch_size, config.recipe.batch_size
    ops = operations(name, 224)
    phases = scaled(ops.layers)
    if together:
        found = [Job("blocks", images, ops.stage1_together(phases), batch)] * SEEDS
    else:
        found = [Job("blocks", images, ops.stage1(*phase), batch) for phase in phases for _ in range(SEEDS)]
    found += [Job("surrogates", images, ops.stage2(), batch)] * SURROGATES
    for seen, size in PROBES.values():
        probed = operations(name, size)
        found += [Job("probes", seen, probed.surrogate(), 128)] * (BACKBONES - 2)
        found += [Job("probes", seen, probed.teacher(probed.layers), 128)] * 2
    return found


def scaled(layers: int) -> list[tuple[int, int]]:
    """The six phases in the shares that they have of 12 layers."""
    return [(round(start * layers / 12), round(end * layers / 12)) for start, end in PHASES]


def makespan(hours: Iterable[float], gpus: int) -> float:
    """Hours until all jobs of a stage are done, longest first, one GPU for each."""
    free = [0.0] * gpus
    for job in sorted(hours, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def share(stage: list[Job], gpus: int) -> int:
    """GPUs for each job of a stage: more than one only where jobs are fewer than GPUs and the batch allows it."""
    most = 1 if stage[0].stage == "probes" else min(gpus // len(stage), stage[0].batch // LEAST_BATCH)  # those take one
    return max(n for n in range(1, max(most, 1) + 1) if stage[0].batch % n == 0)


def stages(found: list[Job]) -> dict[str, list[Job]]:
    """Jobs by stage, in order."""
    return {name: [job for job in found if job.stage == name] for name in ("blocks", "surrogates", "probes")}


def wall(found: list[Job], gpus: int, tflops: float) -> dict[str, tuple[float, int]]:
    """For each stage the hours it takes and the GPUs of each of its jobs, DDP taken to scale evenly."""
    result = {}
    for name, stage in stages(found).items():
        each = share(stage, gpus)
        result[name] = makespan((job.hours(tflops) / each for job in stage), gpus // each), each
    return result


def work_table(given: Given, name: str) -> Table:
    """GPU hours by stage, six phases apart and together."""
    table = Table(
        "stage", "jobs", "EFLOP", "GPU hours", "longest job (h)", title=f"Table 1 of {name}", title_justify="left"
    )
    for title, together in (("", False), (" (phases=all)", True)):
        for stage, of_stage in stages(jobs(name, together)).items():
            if together and stage != "blocks":
                continue
            hours = [job.hours(given.tflops) for job in of_stage]
            work = sum(job.images * job.flops for job in of_stage) / 1e18
            table.add_row(stage + title, str(len(of_stage)), f"{work:,.0f}", f"{sum(hours):,.0f}", f"{max(hours):,.1f}")
    return table


def feed_table(given: Given, ops: Operations) -> Table:
    """What one GPU of stage 1 (first phase) asks of disk and CPU by activation source, and what that costs in space."""
    first = scaled(ops.layers)[0]
    columns = ("source", "disk, ImageNet-1k", "images/s a GPU", "reads (GB/s)", "CPU cores", "limit")
    table = Table(*columns, title=f"One GPU on phase {first[0]}-{first[1]}", title_justify="left")
    online = given.tflops * 1e12 / ops.stage1(*first)
    stored = given.tflops * 1e12 / (ops.stage1(*first) - ops.teacher(first[1]))
    layer = ops.tokens * ops.width
    picture, jpeg = 3 * 224 * 224, 110_000  # bytes; JPEGs of ImageNet-1k are 110 kB on average
    kinds = [
        ("online, JPEG", jpeg, jpeg, online, True),
        ("online, pixel cache", picture, picture, online, False),
        ("layers in bf16", 2 * layer * (ops.layers + 1), 2 * layer * (first[1] + 1), stored, False),
        ("layers in fp32", 4 * layer * (ops.layers + 1), 4 * layer * (first[1] + 1), stored, False),
    ]
    for name, kept, read, rate, decoded in kinds:
        cores = rate / given.decode if decoded else 0.0
        limits = {"compute": rate, "disk": given.disk * 1e9 / read}
        if decoded:
            limits["decoding"] = given.decode * given.cores
        limit = min(limits, key=lambda key: limits[key])
        cells = (f"{kept * IMAGENET / 1e12:,.2f} TB", f"{rate:,.0f}", f"{rate * read / 1e9:.2f}", f"{cores:.0f}")
        table.add_row(name, *cells, f"{limit}: {limits[limit]:,.0f} images/s")
    return table


def scale_table(given: Given, name: str) -> Table:
    """Wall time by number of GPUs, and what binds there."""
    table = Table("GPUs", "blocks (h)", "surrogates (h)", "probes (h)", "all (h)", "busy", "binds", "set")
    table.title, table.title_justify = "Wall time", "left"
    for gpus in [given.gpus] if given.gpus else [8, 64, 512]:
        for together in (False, True):
            found = jobs(name, together)
            by_stage = wall(found, gpus, given.tflops)
            total = sum(hours for hours, _ in by_stage.values())
            busy = sum(job.hours(given.tflops) for job in found) / gpus / total
            cells = [f"{hours:,.1f}" for hours, _ in by_stage.values()]
            binds, advice = verdict(by_stage, busy, together)
            table.add_row(str(gpus), *cells, f"{total:,.1f}", f"{busy:.0%}", binds, advice)
    return table


def verdict(by_stage: dict[str, tuple[float, int]], busy: float, together: bool) -> tuple[str, str]:
    """What holds the table up, and what to set."""
    phases = "surrogate.phases=all" if together else "a job for each phase"
    each = ", ".join(f"{stage} {n}" for stage, (_, n) in by_stage.items() if n > 1)
    setting = phases + (f"; trainer=ddp_bf16 trainer.devices: {each}" if each else "; trainer=gpu_bf16")
    if busy > 0.8:
        return "operations", setting
    if each:
        return f"batch of 64 in parts of {LEAST_BATCH}", setting
    return "fewer jobs than GPUs, or a last long one", setting


def main() -> None:
    """Print all tables."""
    given, console = parse(sys.argv[1:]), Console(width=170)
    if given.check:
        from benchmarks.cost_check import check

        console.print(check())
        return
    name = teacher_name(given.teacher)
    console.print(work_table(given, name), feed_table(given, operations(name, 224)), scale_table(given, name))
    console.print(
        f"{given.tflops:g} TFLOP/s a GPU, {given.decode:g} JPEGs/s a core, {given.disk:g} GB/s a GPU: given, not "
        "measured. Validations (about 5 % of a training) are left out; DDP is taken to scale evenly."
    )


def teacher_name(teacher: str) -> str:
    """Timm's name of a teacher of the configuration.

    Raises
    ------
    SystemExit
        If there is no such file.
    """
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return str(compose("train", [f"teacher={teacher}"]).teacher.name)
    except Exception as error:
        sys.exit(f"error: teacher={teacher}: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
