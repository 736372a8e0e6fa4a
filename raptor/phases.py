"""``python -m raptor.phases``: cut the depth of teachers, or of a saved distance matrix, into phases."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from omegaconf import DictConfig

from raptor.analysis.measures import MEASURES
from raptor.cli.choices import compose_option, has_option
from raptor.cli.command import command
from raptor.data.options import DataNode
from raptor.errors import ConfigError
from raptor.models.options import TeacherNode, TokenType
from raptor.partition.evidence import find_phases
from raptor.partition.files import read_distance
from raptor.partition.maxcut import Matrix
from raptor.partition.phases import check_k
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs
from raptor.runs.options import RecipeOptions, RunOptions
from raptor.utils.files import atomic_write, resolve, write_json
from raptor.utils.options import Invalid, option, parse
from raptor.utils.options import options as typed
from raptor.utils.targets import Foreign

log = logging.getLogger("raptor.phases")
SAVED = ".npy"


@typed
class PhasesOptions(RunOptions):
    """Phases of teachers, or of a saved distance matrix."""

    command: ClassVar[str] = "phases"

    k: int | list[int] = option("Number of phases, or a list of them", default=[1, 2, 3, 4])
    solver: Literal["exact", "normalised", "greedy"] = option(
        "Best contiguous max-cut; the same with each phase's inner sum over its size; or recursive bisection",
        default="exact",
    )
    eps: float | None = option(
        "With greedy: stop where no cut exceeds this share of the weight", default=None, ge=0, lt=1
    )
    distance: str = option(
        "cosine, centred, mse or cka, measured between the teacher's layers; or FILE.npy, and then no teacher is run",
        default="cosine",
    )
    tokens: list[TokenType] | Literal["auto"] = option(
        "Token types that the distance averages over; auto: cls and patches, as far as there are such",
        default=["cls", "patches"],
        min_length=1,
    )
    images: int | None = option("Training images that the distance averages over; null takes all", default=10000, ge=1)
    draws: int = option("Matrices drawn from each null model; 0 leaves the tests out", default=999, ge=0)
    resamples: int = option("Bootstrap resamples of the images; 0 leaves stability out", default=200, ge=0)
    seed: int = option("Seed of random weights, of draws and resamples", default=0, ge=0, lt=2**32)
    teachers: list[str | dict[str, Any]] = option(
        "Several teachers for one figure, instead of teacher: options of that group, model folders, names of timm, or "
        "{name: ..., more keys of teacher=timm}",
        default=[],
    )
    teacher: TeacherNode = option("The ViT whose depth is cut")
    recipe: RecipeOptions = option("Size of a training; other nodes refer to it", identity=False)
    data: DataNode = option("Images")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks or min(self.ks) < 1:
            raise Invalid("k", self.k, "integers >= 1", "write k=3 or 'k=[2,3,4]'")
        if self.eps is not None and self.solver != "greedy":
            raise Invalid("eps", self.eps, "null unless solver=greedy", "set solver=greedy, or eps=null")
        if self.distance not in MEASURES and not self.from_file:
            expected = f"{', '.join(MEASURES)} or a path that ends in {SAVED}"
            raise Invalid("distance", self.distance, expected, "choose a measure, or name such a file")
        if self.teachers and self.from_file:
            raise Invalid("teachers", self.teachers, f"[] with distance={self.distance}", "set one of them")

    @property
    def about(self) -> dict[str, Any]:
        """What the table of :mod:`raptor.status` shows of the run."""
        return {"task": self.command, "k": ",".join(map(str, self.ks))}

    @property
    def ks(self) -> list[int]:
        """Numbers of phases."""
        return [self.k] if isinstance(self.k, int) else self.k

    @property
    def from_file(self) -> bool:
        """Whether the distance is read rather than measured."""
        return self.distance.endswith(SAVED)


def folder(options: PhasesOptions, config: DictConfig) -> RunFolder:
    """Make the run folder of a configuration."""
    return RunFolder(options, config, "phases", former_name="phases", track_inputs=not options.from_file)


@command(PhasesOptions, folder)
def main(options: PhasesOptions, run: RunFolder) -> None:
    """Find phases, or say that they are found."""
    # a file may change under its name, so it is always read again
    result = None if options.from_file else run.result()
    if result is None:
        check_inputs(options)
        with run.recording():
            result = find_all(options, run) if options.teachers else find(options, run)
    for name, phases in _results(result):
        for k, boundaries in phases["boundaries"].items():
            share = phases["measures"][k]["share"] or 0.0
            p = _p_value(phases, k)
            log.info("%sk=%s: boundaries %s, %.1f %% of the weight cut%s", name, k, boundaries, 100 * share, p)
    log.info("%s: %s", run, "teachers.png, */phases.json" if options.teachers else "phases.json, heatmap.png")


def find(options: PhasesOptions, run: RunFolder) -> dict[str, Any]:
    """Measure or read one distance, solve, and write everything to the run folder."""
    begin = time.monotonic()
    if options.from_file:
        resampled: list[Matrix] = []
        distance, source = read_distance(Path(options.distance)), {"distance": options.distance}
    else:
        distance, resampled, source = _measure(options, options.teacher)
    phases = _solve(options, distance, resampled, source)
    _write(run.path, distance, phases, source.get("teacher", Path(options.distance).name))
    return _finish(options, run, begin, {"task": "phases", "phases": phases, "distance": distance.tolist()}, phases)


def name_teachers(entries: Sequence[str | dict[str, Any]]) -> dict[str, TeacherNode]:
    """Find the options of several teachers, by the names that figures give them.

    Parameters
    ----------
    entries
        Options of the group ``teacher``, model folders, names of timm, or mappings of keys for ``teacher=timm``.

    Raises
    ------
    ConfigError
        If an entry is none of these.
    """
    found: dict[str, TeacherNode] = {}
    any_teacher: Any = TeacherNode  # mypy takes no abstract class for a type
    for index, entry in enumerate(entries):
        key = f"teachers[{index}]"
        keys = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = str(keys.get("name", ""))
        if isinstance(entry, str) and has_option("teacher", entry):
            values = compose_option(PhasesOptions.command, "teacher", entry)
        elif isinstance(entry, str) and (resolve(entry) / "model.json").is_file():
            values = {"_target_": "raptor.models.load.load_teacher", "folder": entry}
        elif "name" in keys and _is_model(name):
            values = compose_option(PhasesOptions.command, "teacher", "timm") | keys
        else:
            expected = "an option of the group teacher, a model folder, or a name of timm"
            raise ConfigError.of(key, entry, expected, "see timm.list_models('vit*'); {name: ...} takes more keys")
        label = name.rpartition(":")[2].replace("/", "_")
        if label in found:
            label = f"{label}_{index + 1}"
        found[label] = parse(any_teacher, values, key)
    return found


def _is_model(name: str) -> bool:
    import timm

    from raptor.models.published import is_published

    return bool(is_published(name) or timm.is_model(name))


def find_all(options: PhasesOptions, run: RunFolder) -> dict[str, Any]:
    """Find the phases of several teachers, and draw them in one figure."""
    from raptor.reporting.heatmap import teacher_heatmaps
    from raptor.reporting.style import save_figure

    begin = time.monotonic()
    found: dict[str, tuple[Matrix, dict[str, Any]]] = {}
    for name, node in name_teachers(options.teachers).items():
        distance, resampled, source = _measure(options, node)
        found[name] = distance, _solve(options, distance, resampled, source)
        _write(run.path / name, *found[name], name)
        log.info("%s: %d layers, %d images", name, len(distance), source["images"])
    save_figure(teacher_heatmaps(found), run.path / "teachers")
    teachers = {name: {"phases": phases, "distance": D.tolist()} for name, (D, phases) in found.items()}
    return _finish(options, run, begin, {"task": "teacher_phases", "teachers": teachers}, {})


def _solve(options: PhasesOptions, distance: Matrix, resampled: list[Matrix], source: dict[str, Any]) -> dict[str, Any]:
    phases = find_phases(
        distance, options.ks, options.solver, options.eps, resampled, draws=options.draws, seed=options.seed
    )
    measured = not options.from_file
    tokens = source.pop("tokens", None)
    return phases | {"measure": options.distance if measured else None, "source": source, "tokens": tokens}


def _write(path: Path, distance: Matrix, phases: dict[str, Any], title: str) -> None:
    from raptor.reporting.heatmap import heatmap
    from raptor.reporting.style import save_figure

    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "phases.json", phases)
    atomic_write(path / "distance.npy", lambda tmp_path: _save(tmp_path, distance))
    save_figure(heatmap(distance, phases, title), path / "heatmap")


def _save(path: Path, distance: Matrix) -> None:
    with path.open("wb") as file:
        np.save(file, distance, allow_pickle=False)


def _finish(
    options: PhasesOptions, run: RunFolder, begin: float, found: dict[str, Any], phases: dict[str, Any]
) -> dict[str, Any]:
    metrics = {f"share_k{k}": measures["share"] for k, measures in phases.get("measures", {}).items()}
    seconds = round(time.monotonic() - begin, 1)
    return run.finish({**found, "model": {}, "seed": options.seed, "metrics": metrics, "seconds": seconds})


def _measure(options: PhasesOptions, node: TeacherNode) -> tuple[Matrix, list[Matrix], dict[str, Any]]:
    """Distance, resampled distances, and what they are of."""
    import torch

    from raptor.partition.maxcut import check_distance
    from raptor.tasks.distillation.phases import stream_distance

    torch.manual_seed(options.seed)
    teacher, data = node.build(), options.data.build()
    for k in options.ks if options.eps is None else []:
        check_k(k, teacher.num_layers, "k")  # before hours of measuring
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=options.seed)
    found = stream_distance(teacher, data, options.tokens, options.images, options.distance)
    resampled = [check_distance(drawn) for drawn in found.resample(options.resamples, options.seed)]
    if options.resamples and not resampled:
        log.warning("images=%d are too few to resample: phases.json says nothing on stability", found.images)
    given = node.options if isinstance(node, Foreign) else vars(node)
    source = {
        "teacher": given.get("name", teacher.spec.name),
        "weights": given.get("weights", given.get("folder")),
        "data": data.name,
        "images": found.images,
        "tokens": list(found.types),
    }
    return check_distance(found.compute()), resampled, source


def _results(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "phases" in result:
        yield "", result["phases"]
    for name, found in result.get("teachers", {}).items():
        yield f"{name}: ", found["phases"]


def _p_value(phases: dict[str, Any], k: str) -> str:
    null = ((phases.get("nulls") or {}).get("toeplitz") or {}).get(k)
    return f"; p = {null['contrast']['p']:.3g} against a path without phases" if null else ""


if __name__ == "__main__":
    main()
