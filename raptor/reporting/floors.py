"""Show what trivial predictions of the teacher's layers score, beside what was distilled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.layers import FLOORS, stack
from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import NOTHING, Table
from raptor.runs.groups import RunGroup
from raptor.runs.study import Run, Study

BLOCKS_SHOWN = 40  # rows of the table of stage 1


def floor_tables(study: Study, surrogates: Sequence[RunGroup]) -> list[Table]:
    """Return the floors of surrogates as a table, and the blocks of stage 1 with theirs; none where none are known."""
    tables = []
    lines = list(dict.fromkeys(_line(label, floor, of) for label, floor, of in _floors(surrogates)))
    if lines:
        frame = pd.DataFrame([dict(line) for line in lines]).fillna(NOTHING)
        tables.append(Table("floors", "Floors", frame, caption("floors")))
    blocks = _blocks(study)
    if blocks:
        frame = pd.DataFrame(blocks[:BLOCKS_SHOWN]).fillna(NOTHING)
        tables.append(
            Table("blocks", "Stage 1 and its floors", frame, caption("blocks", more=len(blocks) - len(frame)))
        )
    return tables


def _floors(groups: Sequence[RunGroup]) -> list[tuple[str, str, dict[str, float]]]:
    """List the floors of every group: for what, which, and R2 centred by token type, mean over seeds and layers."""
    found: list[tuple[str, str, dict[str, float]]] = []
    for group in groups:
        runs = [run for run in group.runs if isinstance(run.get("floors"), dict) and run["floors"]]
        for name in dict.fromkeys(name for run in runs for name in run["floors"]):
            means = {kind: _mean([run["floors"].get(name, {}).get(kind) for run in runs]) for kind in TOKEN_TYPES}
            # but for the start of phases, floors do not depend on how depth is cut
            label = group.label.split(", ")[0] if name == "phase_start" else ""
            found.append((label, name, {kind: mean for kind, mean in means.items() if mean == mean}))
    return sorted(found, key=lambda entry: list(FLOORS).index(entry[1]) if entry[1] in FLOORS else len(FLOORS))


def _line(label: str, floor: str, means: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    name = FLOORS.get(floor, floor) + (f", {label}" if label else "")
    return (("floor", name), *((f"R2 centred {kind}", f"{mean:.3f}") for kind, mean in means.items()))


def _mean(curves: Sequence[Any]) -> float:
    """Return the mean over runs and layers, NaN where there is nothing."""
    known = stack(curves)
    return float("nan") if known is None else float(np.nanmean(known))


def _blocks(study: Study) -> list[dict[str, str]]:
    """Return a row for each phase of stage 1: R2 centred, the best floor, and by how much it is exceeded."""
    found: dict[str, list[Run]] = {}
    for run in study.of_task("distill"):
        for phase in run.get("layers", {}) if isinstance(run.get("floors"), dict) else {}:
            found.setdefault(phase, []).append(run)
    lines = []
    for phase, runs in sorted(found.items(), key=lambda item: tuple(map(int, item[0].split("-")))):
        line = {"phase": phase, "runs": str(len(runs))}
        for kind in TOKEN_TYPES:
            own = [_mean([run["layers"][phase].get("r2_centered", {}).get(kind)]) for run in runs]
            best = [max(_mean([by.get(kind)]) for by in run["floors"].get(phase, {}).values()) for run in runs]
            if any(value == value for value in own):
                line[f"R2 centred {kind}"] = MeanCI.of(own).show(3)
                line[f"best floor {kind}"] = MeanCI.of(best).show(3)
        lines.append(line)
    return lines
