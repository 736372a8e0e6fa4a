"""Predict the cost of Table 1: ``python -m benchmarks.cost teacher=dinov2_vitl14_reg gpus=64``.

Operations of every job are counted on shapes; time is operations over what a GPU sustains. The keys:

    teacher    dinov2_vits14_reg, dinov2_vitb14_reg (default), dinov2_vitl14_reg, dinov2_vitg14_reg
    gpus       how many (default: 8, 64 and 512, side by side)
    measured   acceptance.json of make gpu, whose rates of blocks, surrogates and probes and whose decoding are taken
               (default: build/acceptance/acceptance.json, then docs/results/acceptance.json, where one is of a GPU)
    tflops     TFLOP/s that one GPU sustains in a training step, in place of those measured. Without either it is 300,
               an assumption: 45 % of 670, about what large bf16 products reach on an H100
    decode     JPEGs that one CPU core decodes, resizes and crops in a second (default: measured, else 100)
    cores      CPU cores for each GPU (default 12)
    disk       GB/s that one GPU can read from storage (default 1)
    storage    GB/s that storage gives to all GPUs together (default 20)
    source     where distillation takes its layers from: pixels (default: teacher in the step, pixel cache), jpeg
               (teacher in the step, pictures decoded), bf16 or fp32 (stored layers); probes decode in any case
    check      true: predict steps on this machine from the time of one of them, measure them, print the error
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks.measured import described, with_measured
from benchmarks.operations import Operations, operations
from benchmarks.table1 import IMAGENET, JPEG, PICTURE, WIDTH, Given, Job, jobs, scaled, stages, wall
from raptor.errors import ConfigError
from raptor.utils.files import CONFIGS

KINDS: dict[str, Callable[[str], Any]] = {
    "teacher": str,
    "measured": str,
    "source": str,
    "gpus": int,
    "cores": int,
    "check": {"true": True, "false": False}.__getitem__,
}


def parse(arguments: Iterable[str]) -> Given:
    """Parse the keys and values of the command line.

    Raises
    ------
    SystemExit
        On a key or value that does not exist, and for help.
    """
    known = {field.name: field for field in fields(Given) if field.name != "rates"}
    values: dict[str, Any] = {}
    for argument in arguments:
        if argument in ("-h", "--help"):
            sys.exit(__doc__)
        key, _, value = argument.partition("=")
        if key not in known:
            _refuse(key, value, f"a key, as KEY=VALUE: {', '.join(known)}")
        try:
            values[key] = KINDS.get(key, float)(value)
        except (ValueError, KeyError):
            _refuse(key, value, "a value of its type")
        if key == "source" and value not in ("jpeg", "pixels", *WIDTH):
            _refuse(key, value, f"jpeg, pixels, {' or '.join(WIDTH)}")
        if key not in ("teacher", "check", "source", "measured") and values[key] <= 0:
            _refuse(key, value, "a number > 0")
    try:
        return with_measured(values)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def _refuse(key: str, value: Any, expected: str) -> NoReturn:
    sys.exit(f"error: {ConfigError.of(key, value, expected, 'correct it; --help lists all keys')}")


def work_table(given: Given, name: str) -> Table:
    """Tabulate GPU hours by stage, six phases apart and together."""
    table = Table("stage", "jobs", "EFLOP", "GPU hours", "longest job (h)", "reads (TB)")
    table.title, table.title_justify = f"Table 1 of {name}, source={given.source}", "left"
    for title, together in (("", False), (" (six phases in a run)", True)):
        for stage, of_stage in stages(jobs(name, given.source, together=together)).items():
            if together and stage != "blocks":
                continue
            hours = [job.hours(given) for job in of_stage]
            work = sum(job.images * job.flops for job in of_stage) / 1e18
            read = sum(job.images * job.bytes for job in of_stage) / 1e12
            cells = (f"{work:,.0f}", f"{sum(hours):,.0f}", f"{max(hours):,.1f}", f"{read:,.1f}")
            table.add_row(stage + title, str(len(of_stage)), *cells)
    return table


def feed_table(given: Given, ops: Operations) -> Table:
    """Tabulate disk, CPU and space that one GPU of stage 1 needs, by source of activations."""
    first = scaled(ops.layers)[0]
    columns = ("source", "disk, ImageNet-1k", "images/s a GPU", "reads (GB/s)", "CPU cores", "limit")
    table = Table(*columns, title=f"One GPU on phase {first[0]}-{first[1]}", title_justify="left")
    online = given.sustained("blocks") / ops.stage1(*first)
    stored = given.sustained("blocks") / (ops.stage1(*first) - ops.teacher(first[1]))
    layer = ops.tokens * ops.width
    kinds = [
        ("jpeg", JPEG, JPEG, online, True),
        ("pixels", PICTURE, PICTURE, online, False),
        ("bf16", 2 * layer * (ops.layers + 1), 2 * layer * (first[1] + 1), stored, False),
        ("fp32", 4 * layer * (ops.layers + 1), 4 * layer * (first[1] + 1), stored, False),
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
    """Tabulate wall time and the binding resource by number of GPUs."""
    table = Table("GPUs", "blocks", "blocks (h)", "surrogates (h)", "probes (h)", "all (h)", "busy", "binds", "set")
    table.title, table.title_justify = "Wall time", "left"
    for gpus in [given.gpus] if given.gpus else [8, 64, 512]:
        for together in (False, True):
            found = jobs(name, given.source, together=together)
            by_stage = wall(found, gpus, given)
            total = sum(hours for hours, _ in by_stage.values())
            work = sum(job.images * job.flops / given.sustained(job.stage) for job in found)
            busy = work / 3600 / gpus / total
            cells = [f"{hours:,.1f}" for hours, _ in by_stage.values()]
            how = "six in a run" if together else "one in a run"
            table.add_row(
                str(gpus), how, *cells, f"{total:,.1f}", f"{busy:.0%}", *verdict(given, found, by_stage, gpus)
            )
    return table


def verdict(given: Given, found: list[Job], by_stage: dict[str, tuple[float, int]], gpus: int) -> tuple[str, str]:
    """Describe the binding resource of the longest stage, and what to set."""
    slowest = max(by_stage, key=lambda stage: by_stage[stage][0])
    of_stage = stages(found)[slowest]
    each = by_stage[slowest][1]
    longest = max(of_stage, key=lambda job: job.hours(given, gpus))
    rates = longest.rates(given, min(gpus, each * len(of_stage)))
    limit = min(rates, key=lambda key: rates[key])
    binds = f"{slowest}: {limit}"
    if gpus > each * len(of_stage):
        why = "a probe takes one" if slowest == "probes" else f"a batch of {longest.batch} has no more parts"
        binds += f"; {gpus - each * len(of_stage)} GPUs idle, for {why}"
    several = [f"{n} in {stage}" for stage, (_, n) in by_stage.items() if n > 1]
    setting = f"trainer=ddp_bf16, trainer.devices: {', '.join(several)}" if several else "trainer=gpu_bf16"
    advice = {
        "decoding": "a pixel cache, or more cores a GPU",
        "disk": "source=pixels",
        "shared storage": "source=pixels",
    }
    return binds, setting + (f"; {advice[limit]}" if limit in advice and "probes" not in binds else "")


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
        f"{described(given)}; {given.disk:g} GB/s a GPU: given, not measured. Validations (about 5 % of a training) "
        "are left out; DDP is taken to scale evenly."
    )


def teacher_name(teacher: str) -> str:
    """Look up timm's name of a teacher of the configuration.

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
