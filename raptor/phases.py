"""``python -m raptor.phases``: cut the depth of a teacher, or of a saved distance matrix, into phases."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.data.options import DataNode
from raptor.models.options import TeacherNode, TokenType
from raptor.partition.files import read_distance
from raptor.partition.maxcut import Matrix
from raptor.partition.quality import solve_all
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs
from raptor.runs.options import RecipeOptions, RunOptions
from raptor.utils.files import write_aside, write_json
from raptor.utils.options import Invalid, option
from raptor.utils.options import options as typed

log = logging.getLogger("raptor.phases")


@typed
class PhasesOptions(RunOptions):
    """Phases of a teacher, or of a saved distance matrix."""

    command: ClassVar[str] = "phases"

    k: int | list[int] = option("Number of phases, or a list of them", default=[1, 2, 3, 4])
    solver: Literal["exact", "greedy"] = option(
        "Best contiguous max-cut, or recursive bisection as published", default="exact"
    )
    eps: float | None = option(
        "With greedy: stop where no cut exceeds this share of the weight", default=None, ge=0, lt=1
    )
    distance: str | None = option("FILE.npy with a square matrix; then no teacher is run", default=None)
    tokens: list[TokenType] = option(
        "Token types that the distance averages over", default=["cls", "patches"], min_length=1
    )
    images: int | None = option("Training images that the distance averages over; null takes all", default=10000, ge=1)
    seed: int = option("Seed of a teacher with random weights", default=0, ge=0, lt=2**32)
    teacher: TeacherNode = option("The ViT whose depth is cut")
    recipe: RecipeOptions = option("Size of a training; other nodes refer to it", identity=False)
    data: DataNode = option("Images")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks or min(self.ks) < 1:
            raise Invalid("k", self.k, "integers >= 1", "write k=3 or 'k=[2,3,4]'")
        if self.eps is not None and self.solver != "greedy":
            raise Invalid("eps", self.eps, "null unless solver=greedy", "set solver=greedy, or eps=null")

    @property
    def about(self) -> dict[str, Any]:
        """What the table of :mod:`raptor.status` shows of the run."""
        return {"task": self.command, "k": ",".join(map(str, self.ks))}

    @property
    def ks(self) -> list[int]:
        """Numbers of phases."""
        return [self.k] if isinstance(self.k, int) else self.k


def folder(options: PhasesOptions, config: DictConfig) -> RunFolder:
    """Make the run folder of a configuration."""
    return RunFolder(options, config, "phases", former_name="phases", track_inputs=options.distance is None)


@command(PhasesOptions, folder)
def main(options: PhasesOptions, run: RunFolder) -> None:
    """Find phases, or say that they are found."""
    from_file = options.distance is not None  # a file may change under its name, so it is always read again
    result = None if from_file else run.result()
    if result is None:
        check_inputs(options)
        with run.recording():
            result = find(options, run)
    for k, boundaries in result["phases"]["boundaries"].items():
        log.info("k=%s: boundaries %s, %.1f %% of the weight cut", k, boundaries, 100 * _share(result, k))
    log.info("%s: phases.json, distance.npy, heatmap.png", run)


def find(options: PhasesOptions, run: RunFolder) -> dict[str, Any]:
    """Measure or read the distance, solve, and write everything to the run folder."""
    begin = time.monotonic()
    if options.distance is not None:
        distance, source = read_distance(Path(options.distance)), {"distance": str(options.distance)}
    else:
        distance, source = _measure(options)
    phases = solve_all(distance, options.ks, options.solver, options.eps)
    phases |= {"source": source, "tokens": list(options.tokens) if options.distance is None else None}
    write_json(run.path / "phases.json", phases)
    write_aside(run.path / "distance.npy", lambda aside: _save(aside, distance))

    from raptor.reporting.heatmap import heatmap
    from raptor.reporting.style import save_figure

    save_figure(
        heatmap(distance, phases, source.get("teacher", Path(str(options.distance)).name)),
        run.path / "heatmap",
    )
    return run.finish(
        {
            "task": "phases",
            "model": {},
            "seed": options.seed,
            "phases": phases,
            "distance": distance.tolist(),
            "metrics": {f"share_k{k}": measures["share"] for k, measures in phases["measures"].items()},
            "seconds": round(time.monotonic() - begin, 1),
        }
    )


def _save(path: Path, distance: Matrix) -> None:
    with path.open("wb") as file:
        np.save(file, distance, allow_pickle=False)


def _measure(options: PhasesOptions) -> tuple[Matrix, dict[str, Any]]:
    import torch

    from raptor.tasks.distillation.phases import measure_distance

    torch.manual_seed(options.seed)
    teacher, data = options.teacher.build(), options.data.build()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=options.seed)
    source = {
        "teacher": getattr(options.teacher, "name", teacher.spec.name),
        "weights": getattr(options.teacher, "weights", None),
        "data": data.name,
        "images": min(options.images or len(data.train_images), len(data.train_images)),
    }
    return measure_distance(teacher, data, list(options.tokens), options.images), source


def _share(result: dict[str, Any], k: str) -> float:
    return result["phases"]["measures"][k]["share"] or 0.0


if __name__ == "__main__":
    main()
