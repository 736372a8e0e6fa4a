"""``python -m raptor.phases``: cut the depth of a teacher, or of a saved distance matrix, into phases."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from raptor.cli import command
from raptor.errors import ConfigError
from raptor.files import write_aside, write_json
from raptor.partition.maxcut import SOLVERS, Matrix, check_distance, greedy, solve
from raptor.partition.phases import check_k, phases_of
from raptor.partition.quality import quality, random_control
from raptor.results.run import RunFolder

log = logging.getLogger("raptor.phases")


@command("phases")
def main(config: DictConfig) -> None:
    """Find phases, or say that they are found."""
    from_file = config.distance is not None  # a file may change under its name, so it is always read again
    run = RunFolder(config, default_name="phases", track_inputs=not from_file)
    result = None if from_file else run.result()
    if result is None:
        _check(config)
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

    from raptor.results.figures import save_figure
    from raptor.results.heatmap import heatmap

    save_figure(
        heatmap(distance, phases, source.get("teacher", Path(str(config.distance)).name)),
        run.path / "heatmap",
    )
    return run.finish(
        {
            "task": "phases",
            "seed": config.seed,
            "phases": phases,
            "distance": distance.tolist(),
            "metrics": {f"share_k{k}": measures["share"] for k, measures in phases["measures"].items()},
            "seconds": round(time.monotonic() - begin, 1),
        }
    )


def solve_all(distance: Matrix, ks: list[int], solver: str, eps: float | None = None) -> dict[str, Any]:
    """Boundaries and measures for each number of phases: what ``phases.json`` holds.

    Parameters
    ----------
    distance
        ``(L, L)``.
    ks
        Numbers of phases; with ``eps`` they are not used.
    solver
        ``"exact"`` or ``"greedy"``.
    eps
        Let greedy bisection stop by itself.

    Raises
    ------
    ConfigError
        If a number does not fit.
    """
    L = len(distance)
    if eps is not None:
        found = [greedy(distance, eps=eps)]
    else:
        found = [solve(distance, check_k(k, L, "k"), solver) for k in ks]
    by_k = {str(len(boundaries) + 1): boundaries for boundaries in found}
    return {
        "num_layers": L,
        "solver": solver,
        "eps": eps,
        "boundaries": by_k,
        "phases": {k: [list(p) for p in phases_of(boundaries, L)] for k, boundaries in by_k.items()},
        "measures": {k: quality(distance, boundaries) for k, boundaries in by_k.items()},
        "random": {k: random_control(distance, int(k)) for k in by_k},
    }


def read_distance(path: Path) -> Matrix:
    """A saved distance matrix.

    Raises
    ------
    ConfigError
        If the file is missing, no plain array, or no distance matrix.
    """
    if not path.is_file():
        raise ConfigError(f"distance={path} does not exist: give a .npy file with a square matrix")
    try:
        return check_distance(np.load(path, allow_pickle=False), f"distance={path}")
    except (OSError, EOFError, TypeError) as error:
        raise ConfigError(f"distance={path} is no .npy file: {error}") from error
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"distance={path} is no plain numeric .npy file: {error}") from error


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
    if not (isinstance(config.k, int) or OmegaConf.is_list(config.k)) or not _ks(config):
        raise ConfigError(f"k={config.k} must be a whole number or a list of them, such as k=[2,3,4]")


def _measure(config: DictConfig) -> tuple[Matrix, dict[str, Any]]:
    from hydra.utils import instantiate

    from raptor.tasks.partitioning import measure_distance

    teacher = instantiate(config.teacher, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=config.seed)
    source = {
        "teacher": config.teacher.name,
        "weights": config.teacher.weights,
        "data": data.name,
        "images": min(config.images, len(data.train_images)),
    }
    return measure_distance(teacher, data, list(config.tokens), config.images), source


def _share(result: dict[str, Any], k: str) -> float:
    return result["phases"]["measures"][k]["share"] or 0.0


if __name__ == "__main__":
    main()
