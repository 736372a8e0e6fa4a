"""``python -m raptor.phases``: cut the depth of a teacher, or of a saved distance matrix, into phases."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from raptor.cli.command import command
from raptor.errors import ConfigError
from raptor.partition.files import read_distance
from raptor.partition.maxcut import SOLVERS, Matrix
from raptor.partition.quality import solve_all
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs
from raptor.utils.files import write_aside, write_json

log = logging.getLogger("raptor.phases")


def folder(config: DictConfig) -> RunFolder:
    """The run folder of a configuration."""
    return RunFolder(config, default_name="phases", track_inputs=config.distance is None)


@command("phases", folder)
def main(config: DictConfig, run: RunFolder) -> None:
    """Find phases, or say that they are found."""
    from_file = config.distance is not None  # a file may change under its name, so it is always read again
    result = None if from_file else run.result()
    if result is None:
        _check(config)
        check_inputs(config)
        with run.recording():
            result = find(config, run)
    for k, boundaries in result["phases"]["boundaries"].items():
        log.info("k=%s: boundaries %s, %.1f %% of the weight cut", k, boundaries, 100 * _share(result, k))
    log.info("%s: phases.json, distance.npy, heatmap.png", run)


def find(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Measure or read the distance, solve, and write everything to the run folder."""
    begin = time.monotonic()
    if config.distance is not None:
        distance, source = read_distance(Path(config.distance)), {"distance": str(config.distance)}
    else:
        distance, source = _measure(config)
    phases = solve_all(distance, list(_ks(config)), config.solver, config.eps)
    phases |= {"source": source, "tokens": list(config.tokens) if config.distance is None else None}
    write_json(run.path / "phases.json", phases)
    write_aside(run.path / "distance.npy", lambda aside: _save(aside, distance))

    from raptor.reporting.heatmap import heatmap
    from raptor.reporting.style import save_figure

    save_figure(
        heatmap(distance, phases, source.get("teacher", Path(str(config.distance)).name)),
        run.path / "heatmap",
    )
    return run.finish(
        {
            "task": "phases",
            "model": {},
            "seed": config.seed,
            "phases": phases,
            "distance": distance.tolist(),
            "metrics": {f"share_k{k}": measures["share"] for k, measures in phases["measures"].items()},
            "seconds": round(time.monotonic() - begin, 1),
        }
    )


def _save(path: Path, distance: Matrix) -> None:
    with path.open("wb") as file:
        np.save(file, distance, allow_pickle=False)


def _ks(config: DictConfig) -> list[int]:
    return [config.k] if isinstance(config.k, int) else list(config.k)


def _check(config: DictConfig) -> None:
    if config.solver not in SOLVERS:
        raise ConfigError(f"solver={config.solver!r} is unknown; choose {' or '.join(SOLVERS)}")
    if config.eps is not None and config.solver != "greedy":
        raise ConfigError(f"eps={config.eps} is a stop for greedy bisection: set solver=greedy, or eps=null")
    if config.images is not None and not (isinstance(config.images, int) and config.images > 0):
        raise ConfigError(f"images={config.images} must be a whole number above 0, or null for all")
    if not config.tokens:
        raise ConfigError("tokens is empty: name token types, such as tokens=[cls,patches]")
    if not (isinstance(config.k, int) or OmegaConf.is_list(config.k)) or not _ks(config):
        raise ConfigError(f"k={config.k} must be a whole number or a list of them, such as k=[2,3,4]")


def _measure(config: DictConfig) -> tuple[Matrix, dict[str, Any]]:
    import torch
    from hydra.utils import instantiate

    from raptor.tasks.distillation.phases import measure_distance

    torch.manual_seed(config.seed)
    teacher = instantiate(config.teacher, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=config.seed)
    source = {
        "teacher": config.teacher.name,
        "weights": config.teacher.weights,
        "data": data.name,
        "images": min(config.images or len(data.train_images), len(data.train_images)),
    }
    return measure_distance(teacher, data, list(config.tokens), config.images), source


def _share(result: dict[str, Any], k: str) -> float:
    return result["phases"]["measures"][k]["share"] or 0.0


if __name__ == "__main__":
    main()
