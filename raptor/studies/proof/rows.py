"""Gather the numbers of an existence proof from its runs, as plain data that tables and figures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from raptor.errors import ConfigError
from raptor.runs.study import Run, Study
from raptor.studies.proof.measures import share_of_gap

TEACHER, CONTROL = "teacher", "untrained"
FIDELITY = ("r2_centered", "cosine", "eps")

Numbers = dict[str, Any]


def gather(study: Study) -> Numbers:
    """Return every number of the study that is shown, by name of run.

    Raises
    ------
    ConfigError
        If there is no readout of the teacher, which all others are compared with.
    """
    records = {record.name: record for record in study.records}
    readouts = {str(run["name"]): _readout(run) for run in study.of_task("readout")}
    models = {}
    for run in study.of_task("finetune"):
        configuration = records[run["name"]].configuration
        batch = configuration.options.get("data.batch_size") if configuration else None
        models[str(run["name"])] = _model(run, batch if isinstance(batch, int) else None)
    numbers: Numbers = {"study": study.root.name, "readouts": readouts, "models": models}
    if TEACHER not in references(numbers):
        expected = "a study with a finished readout of the teacher"
        raise ConfigError.of("study", study.root.name, expected, "run the stage that reads off the teacher first")
    return numbers


def _readout(run: Run) -> Numbers:
    model = run["model"]
    folder = model["backbone"]["folder"]
    parts = Path(folder).parts if folder else ()
    step = int(parts[-1]) if len(parts) > 2 and parts[-2] == "snapshots" else None
    return {
        "label": model["backbone"]["label"],
        "backbone": (parts[-1] if step is None else parts[-3]) if folder else None,
        "step": step,
        "data": run["data"]["name"],
        "k": model.get("k"),
        "blocks": model["block_parameters"] / model["teacher_block_parameters"],
        **{key: run[key] for key in ("accuracy", "standard_error", "images", "neighbours")},
        **({"maps": run["maps"]} if "maps" in run else {}),
    }


def _model(run: Run, batch: int | None) -> Numbers:
    (curves,) = run["layers"].values()
    model, steps = run["model"], run["steps"]
    floors = run.get("floors") or {}
    history = {}
    for kind in curves["r2_centered"]:  # the validation after the last step stands there twice
        points = {min(int(step) + 1, steps): value for step, value in run["history"].get(f"val/r2_centered_{kind}", [])}
        history[kind] = [[step, value] for step, value in points.items()]
    return {
        "kind": model["kind"],
        "label": model.get("label", f"k={model.get('k')}"),
        "k": model.get("k"),
        "seed": run["seed"],
        "boundaries": model.get("boundaries"),
        "blocks": model["block_parameters"] / model["teacher_block_parameters"],
        "steps": steps,
        "batch": batch,
        "images": steps * batch if batch else None,
        "validated": run["data"].get("val"),
        "layers": {measure: curves[measure] for measure in FIDELITY},
        "floors": floors,
        "history": history,
        "seconds": run.get("seconds"),
    }


def references(numbers: Numbers, data: str | None = None) -> dict[str, Numbers]:
    """Return the readouts of the teacher and of the untrained control, of one data set or the first there is."""
    rows = {r["label"]: r for r in reversed(numbers["readouts"].values()) if r["backbone"] is None}
    return {k: r for k, r in rows.items() if k in (TEACHER, CONTROL) and data in (None, r["data"])}


def above_floor(model: Numbers) -> dict[str, list[float]]:
    """Return R2 centred less that of the best floor, at each layer, by token type."""
    return {
        kind: [
            value - max((by[kind][i] for by in model["floors"].values() if by.get(kind)), default=0.0)
            for i, value in enumerate(values)
        ]
        for kind, values in model["layers"]["r2_centered"].items()
    }


def final_readouts(numbers: Numbers) -> dict[str, Numbers]:
    """Return the readouts of finished models, by name of run."""
    return {name: r for name, r in numbers["readouts"].items() if r["step"] is None}


def shares(readout: Numbers, numbers: Numbers, probe: str = "ridge", layer: int = -1) -> dict[str, float | None]:
    """Return accuracy at a layer, and its shares of the teacher's and of the gap from the control to the teacher.

    The teacher's accuracy is that of its last layer, so that early exits are compared with the whole.

    Parameters
    ----------
    readout
        One of the study's.
    numbers
        Of :func:`gather`.
    probe
        ``"ridge"`` or ``"knn"``.
    layer
        Index of a layer, 0..L.
    """
    accuracy = float(readout["accuracy"][probe][layer])
    by = references(numbers, readout["data"])
    teacher = by[TEACHER]["accuracy"][probe][-1] if TEACHER in by else None
    control = by[CONTROL]["accuracy"][probe][-1] if CONTROL in by else None
    gap = None if teacher is None or control is None else share_of_gap(accuracy, control, teacher)
    return {"accuracy": accuracy, "share": accuracy / teacher if teacher else None, "gap": gap}


def mean_fidelity(model: Numbers) -> Mapping[str, float]:
    """Return R2 centred, the mean over layers, by token type."""
    return {kind: fmean(values) for kind, values in model["layers"]["r2_centered"].items()}


def curve(numbers: Numbers, name: str) -> list[tuple[int, float]]:
    """Return pairs of images seen and ridge accuracy of a model at its snapshots and its end."""
    model, points = numbers["models"].get(name), []
    for readout in numbers["readouts"].values():
        if readout["backbone"] != name or not model or not model["batch"]:
            continue
        step = model["steps"] if readout["step"] is None else readout["step"]
        points.append((step * model["batch"], readout["accuracy"]["ridge"][-1]))
    return sorted(points)
