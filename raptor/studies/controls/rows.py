"""Read the runs of the study of controls as rows: a method, a number of blocks and a seed each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from raptor.errors import ConfigError
from raptor.runs.groups import Record, number
from raptor.runs.study import Run, Study

TIED = "tied"
METHODS = {  # label of configs/surrogate/*.yaml: title, in the order of tables
    TIED: "tied blocks, max-cut phases",
    "equal": "tied blocks, equal phases",
    "random": "tied blocks, random phases",
    "untied": "untied blocks",
    "untied_all": "untied blocks, matched at all layers",
    "truncated": "truncated teacher",
    "truncated_healed": "truncated, last block healed",
    "pruned": "pruned teacher",
    "pruned_healed": "pruned, healed",
    "linear": "linear map for a stretch",
    "linear_healed": "linear map, healed",
    "per_layer": "ceiling: a block for each layer",
    "interpolated": "oracle: interpolated phases",
}
OTHERS = ("per_layer", "interpolated")  # of other parameters: beside the comparison, not in it
PARTITIONS = ("equal", "random")
FLOORS = {
    "mean": "floor: mean image",
    "layer_0": "floor: layer 0 held",
    "phase_start": "floor: phase start held",
    "affine": "floor: affine map of layer 0",
}
KINDS = ("cls", "patches")
MEASURES = {  # column: title, decimals, factor
    "probe": ("linear probe, top-1 (%)", 1, 100.0),
    "head": ("teacher's head, top-1 (%)", 1, 100.0),
    **{f"r2_{kind}": (f"R2 centred {kind}", 3, 1.0) for kind in KINDS},
    **{f"r2_{kind}_last": (f"R2 centred {kind}, last layer", 3, 1.0) for kind in KINDS},
    **{f"above_{kind}": (f"above best floor {kind}", 3, 1.0) for kind in KINDS},
    **{f"eps_{kind}": (f"eps {kind}", 3, 1.0) for kind in KINDS},
}


def rows(study: Study) -> pd.DataFrame:
    """Return a row for each finished run of a method.

    Returns
    -------
    DataFrame
        ``method``, ``k``, ``seed``, ``parameters`` (of blocks), ``flops`` (of blocks, one image), ``images`` (seen in
        training or fitting), ``boundaries``, and every measure of :data:`MEASURES`.

    Raises
    ------
    ConfigError
        If the study has no run with floors.
    """
    probes = {_probed(run): number(run["metrics"].get("val/top1")) for run in study.of_task("linear_probe")}
    found = [
        _row(record, record.result, probes)
        for record in study.records
        if record.task == "finetune" and record.result is not None and record.result.get("floor_measures")
    ]
    if not found:
        raise ConfigError(f"study={study.root.name} has no finished run with floors: run experiment=controls first")
    frame = pd.DataFrame(found)
    for kind in KINDS:
        best = pd.Series({k: max(by[kind] for by in floor_means(study, int(k)).values()) for k in frame["k"].unique()})
        frame[f"above_{kind}"] = frame[f"r2_{kind}"] - frame["k"].map(best)
    rank = {method: i for i, method in enumerate(METHODS)}
    order = frame.assign(rank=frame["method"].map(rank)).sort_values(["k", "rank", "seed"]).index
    return frame.loc[order].reset_index(drop=True)


def _probed(run: Run) -> str:
    """Name the run whose model a probe reads; of the teacher and the untrained control, their label and seed."""
    backbone = run["model"]["backbone"]
    return Path(backbone["folder"]).name if backbone.get("folder") else f"{backbone['label']}-{run['seed']}"


def _row(record: Record, run: Run, probes: Mapping[str, float | None]) -> dict[str, Any]:
    assert record.configuration is not None
    model, curves = run["model"], next(iter(run["layers"].values()))
    values = {f"r2_{kind}": fmean(curves["r2_centered"][kind]) for kind in KINDS}
    values |= {f"r2_{kind}_last": curves["r2_centered"][kind][-1] for kind in KINDS}
    values |= {f"eps_{kind}": fmean(curves["eps"][kind]) for kind in KINDS}
    return {
        "method": model.get("rival") or model.get("label", TIED),
        "k": model["k"],
        "seed": run["seed"],
        "parameters": model["block_parameters"],
        "flops": model["block_flops"],
        "images": run["steps"] * record.configuration.options["data.batch_size"] + model.get("images", 0),
        "boundaries": " ".join(map(str, model["boundaries"])),
        "probe": probes.get(run["name"]),
        "head": number(run["metrics"].get("val/top1")),
        **values,
    }


def references(study: Study) -> dict[str, list[float]]:
    """Return the probe's accuracy on the teacher and on an untrained network, a value for each seed."""
    found: dict[str, list[float]] = {}
    for run in study.of_task("linear_probe"):
        value = number(run["metrics"].get("val/top1"))
        if not run["model"]["backbone"].get("folder") and value is not None:
            found.setdefault(run["model"]["backbone"]["label"], []).append(value)
    return found


def floors(study: Study, k: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return the scores of the floors of tied blocks on max-cut phases: floor, measure, token type, layers 1..L."""
    for run in study.of_task("finetune"):
        model = run["model"]
        is_tied = not model.get("rival") and model.get("label", TIED) == TIED
        if is_tied and model["k"] == k and run.get("floor_measures"):
            return next(iter(run["floor_measures"].values()))
    raise ConfigError(f"study={study.root.name} has no finished run of surrogate=auto with k={k}: run it first")


def floor_means(study: Study, k: int) -> dict[str, dict[str, float]]:
    """Return R2 centred of each floor by token type, mean over layers."""
    return {name: {kind: fmean(by["r2_centered"][kind]) for kind in KINDS} for name, by in floors(study, k).items()}
