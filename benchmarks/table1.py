"""Jobs of Table 1: operations and reads, the rate of one of many GPUs, hours of a stage."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.configuration import train_options
from benchmarks.operations import PHASES, operations

IMAGENET, ADE20K, NYUV2 = 1_281_167, 20_210, 50_688  # training images
WIDTH = {"bf16": 2, "fp32": 4}  # bytes of a stored number
SEEDS, SURROGATES, BACKBONES = 3, 9, 11
PROBES: dict[str, tuple[int, int | tuple[int, int]]] = {
    "imagenet": (15 * IMAGENET, 224),
    "ade20k": (10 * ADE20K, 518),
    "nyuv2": (25 * NYUV2, (490, 644)),
}
LEAST_BATCH = 8  # images for each GPU, below which its kernels are too small


PICTURE, JPEG = 3 * 224 * 224, 110_000  # bytes of a cached picture, and of an average JPEG of ImageNet-1k


@dataclass(frozen=True)
class Given:
    """Keys of the command line.

    ``rates`` is no key: TFLOP/s by stage, measured, where ``measured`` gives them and ``tflops`` is not given.
    """

    teacher: str = "dinov2_vitb14_reg"
    gpus: int | None = None
    tflops: float = 300.0
    decode: float = 100.0
    cores: int = 12
    disk: float = 1.0
    storage: float = 20.0
    source: str = "pixels"
    check: bool = False
    measured: str | None = None
    rates: dict[str, float] = field(default_factory=dict)

    def sustained(self, stage: str) -> float:
        """Return the operations per second of one GPU in a stage."""
        return 1e12 * self.rates.get(stage, self.tflops)


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
    bytes
        That are read for each image.
    decoded
        Whether each image is decoded from JPEG.
    """

    stage: str
    images: float
    flops: float
    batch: int
    bytes: float = 0.0
    decoded: bool = False

    def rates(self, given: Given, gpus: int) -> dict[str, float]:
        """Compute images per second of one of so many GPUs, by resource that could bind."""
        read = min(given.disk, given.storage / gpus) * 1e9
        found = {"operations": given.sustained(self.stage) / self.flops}
        if self.bytes:
            found["disk" if given.disk * gpus <= given.storage else "shared storage"] = read / self.bytes
        if self.decoded:
            found["decoding"] = given.decode * given.cores
        return found

    def hours(self, given: Given, gpus: int = 1) -> float:
        """Compute the hours on one of so many GPUs at work."""
        return self.images / min(self.rates(given, gpus).values()) / 3600


def jobs(name: str, source: str = "pixels", *, together: bool = False) -> list[Job]:
    """List the jobs of Table 1 at the paper's sizes; ``together`` trains six phases in one run."""
    recipe = train_options("experiment=table1/surrogates").recipe
    images, batch = recipe.steps * recipe.batch_size, recipe.batch_size
    ops = operations(name, 224)
    phases = scaled(ops.layers)

    def distill(stage: str, flops: float, start: int, end: int) -> Job:
        if source in WIDTH:
            flops -= ops.teacher(end)
            return Job(stage, images, flops, batch, WIDTH[source] * ops.tokens * ops.width * (end - start + 1))
        return Job(stage, images, flops, batch, JPEG if source == "jpeg" else PICTURE, source == "jpeg")

    if together:
        found = [distill("blocks", ops.stage1_together(phases), 0, ops.layers)] * SEEDS
    else:
        found = [distill("blocks", ops.stage1(*phase), *phase) for phase in phases for _ in range(SEEDS)]
    found += [distill("surrogates", ops.stage2(), 0, ops.layers)] * SURROGATES
    for seen, size in PROBES.values():
        probed = operations(name, size)
        flops = [probed.surrogate()] * (BACKBONES - 2) + [probed.teacher(probed.layers)] * 2
        found += [Job("probes", seen, each, 128, JPEG, decoded=True) for each in flops]
    return found


def scaled(layers: int) -> list[tuple[int, int]]:
    """Scale the six phases of Table 1 from 12 layers to another depth."""
    return [(round(start * layers / 12), round(end * layers / 12)) for start, end in PHASES]


def makespan(hours: Iterable[float], gpus: int) -> float:
    """Compute the hours of a stage, longest job first, one GPU for each."""
    free = [0.0] * gpus
    for job in sorted(hours, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def share(stage: list[Job], gpus: int) -> int:
    """Compute the GPUs of each job of a stage, limited by its batch."""
    most = 1 if stage[0].stage == "probes" else min(gpus // len(stage), stage[0].batch // LEAST_BATCH)  # those take one
    return max(n for n in range(1, max(most, 1) + 1) if stage[0].batch % n == 0)


def stages(found: list[Job]) -> dict[str, list[Job]]:
    """Group jobs by stage, in order."""
    return {name: [job for job in found if job.stage == name] for name in ("blocks", "surrogates", "probes")}


def wall(found: list[Job], gpus: int, given: Given) -> dict[str, tuple[float, int]]:
    """Compute the hours of each stage and the GPUs of its jobs; DDP is taken to scale evenly."""
    result = {}
    for name, stage in stages(found).items():
        each = share(stage, gpus)
        at_work = min(gpus, each * len(stage))
        result[name] = makespan((job.hours(given, at_work) / each for job in stage), gpus // each), each
    return result
