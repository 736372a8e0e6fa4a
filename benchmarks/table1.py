"""The jobs of Table 1: operations and reads, the pace of one of many GPUs, how long a stage takes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from hydra import compose, initialize_config_dir

from benchmarks.operations import PHASES, operations
from raptor.utils.files import CONFIGS

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
    """The keys of the command line."""

    teacher: str = "dinov2_vitb14_reg"
    gpus: int | None = None
    tflops: float = 300.0
    decode: float = 100.0
    cores: int = 12
    disk: float = 1.0
    storage: float = 20.0
    source: str = "pixels"
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
        """Images per second of one of so many GPUs by what could bind."""
        read = min(given.disk, given.storage / gpus) * 1e9
        found = {"operations": given.tflops * 1e12 / self.flops}
        if self.bytes:
            found["disk" if given.disk * gpus <= given.storage else "shared storage"] = read / self.bytes
        if self.decoded:
            found["decoding"] = given.decode * given.cores
        return found

    def hours(self, given: Given, gpus: int = 1) -> float:
        """On one of so many GPUs at work."""
        return self.images / min(self.rates(given, gpus).values()) / 3600


def jobs(name: str, source: str = "pixels", together: bool = False) -> list[Job]:
    """All jobs of Table 1 with the sizes of the paper's recipe; ``together`` trains six phases in one run."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", ["experiment=table1/surrogates"])
    images, batch = config.recipe.steps * config.recipe.batch_size, config.recipe.batch_size
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
    """The six phases of Table 1, for other depths in the shares that they have of 12 layers."""
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


def wall(found: list[Job], gpus: int, given: Given) -> dict[str, tuple[float, int]]:
    """For each stage the hours it takes and the GPUs of each of its jobs, DDP taken to scale evenly."""
    result = {}
    for name, stage in stages(found).items():
        each = share(stage, gpus)
        at_work = min(gpus, each * len(stage))
        result[name] = makespan((job.hours(given, at_work) / each for job in stage), gpus // each), each
    return result
