"""The rows of the small-scale study, from the results of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from raptor.errors import ConfigError
from raptor.runs.study import Run, Study

TASK = "partitions"
STAGES = ("trained", "checkpoint", "untrained")
KEYS = ("teacher", "training", "stage", "drop_path", "step", "seed")
MEASURES = {
    "adjacent": "mean distance of adjacent layers",
    "contrast": "contrast of the partition",
    "share": "share of distance cut",
}
SCORES = {"r2_cls": "R2 cls", "r2_patches": "R2 patches", "agreement": "agreement", "kept": "accuracy kept"}
BASELINES = {  # of tasks/distillation/fidelity.py, by token type
    f"{name}_{kind}": f"{what}, {kind}"
    for name, what in (("embedding", "R2 of layer 0 held"), ("mean", "R2 of the mean image"))
    for kind in ("cls", "patches")
}
SIDES = {"intra": "same phase", "inter": "another phase"}


def runs(study: Study) -> list[Run]:
    """List the runs of the study's task, checked.

    Raises
    ------
    ConfigError
        If there is none, or one says not what its teacher was.
    """
    found = study.of_task(TASK)
    if not found:
        expected = f"a study with a finished run of task={TASK}"
        raise ConfigError.of("study", study.root, expected, "run experiment=small_scale first")
    for run in found:
        stage = run["model"]["tags"].get("stage")
        if stage not in STAGES:
            expected = f"{', '.join(STAGES)} (in {study.root / run['name']})"
            raise ConfigError.of("task.tags.stage", stage, expected, "run it again with one of them")
    return found


def teachers(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each teacher: :data:`KEYS`, ``top1``, ``adjacent``, and ``contrast_kK``, ``share_kK`` of max-cut."""
    return pd.DataFrame([_teacher(run) for run in runs])


def _keys(run: Run) -> dict[str, Any]:
    tags = run["model"]["tags"]
    untrained = tags["stage"] == "untrained"
    # checkpoints of one training are no independent teachers
    training = f"{'untrained' if untrained else tags.get('drop_path')}-{tags.get('seed')}"
    return {"teacher": run["name"], "training": training, **{key: tags.get(key) for key in KEYS[2:]}}


def _teacher(run: Run) -> dict[str, Any]:
    measures = run["teacher_measures"]
    best = {
        f"{name}_k{k}": at["measures"][name] for k, at in measures["maxcut"].items() for name in ("contrast", "share")
    }
    trivial = {
        f"{name}_{kind}": float(np.mean(r2)) for name, by in run.get("baselines", {}).items() for kind, r2 in by.items()
    }
    return {
        **_keys(run),
        "top1": run["metrics"].get("val/teacher_top1"),
        "adjacent": measures["adjacent"],
        **best,
        **dict.fromkeys(BASELINES),
        **trivial,
    }


def fits(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each surrogate: its teacher, ``k``, ``kind``, ``draw``, measures of the partition, and scores.

    ``kept`` is top-1 over the teacher's; R2 and cosine are means over the layers 1..L, as are :data:`BASELINES`. What a
    run has not, such as R2 of registers, is NaN.
    """
    rows = []
    for run in runs:
        teacher = _teacher(run)
        for name, partition in run["partitions"].items():
            prefix = f"val/{name}/"
            scores = {key.removeprefix(prefix): v for key, v in run["metrics"].items() if key.startswith(prefix)}
            scores = {"top1": None, "agreement": None} | scores
            known = scores["top1"] is not None and teacher["top1"]
            rows.append(
                {key: teacher[key] for key in KEYS}
                | {"teacher_top1": teacher["top1"], "adjacent": teacher["adjacent"], "piece": name}
                | {key: teacher[key] for key in BASELINES}
                | {key: partition[key] for key in ("k", "kind", "draw")}
                | {"labels": " ".join(map(str, partition["labels"]))}
                | partition["measures"]
                | scores
                | {"kept": scores["top1"] / teacher["top1"] if known else None}
            )
    frame = pd.DataFrame(rows)
    numbers = [*MEASURES, *SCORES, *BASELINES, "r2_registers", "teacher_top1", "top1", "within", "cross", "drop_path"]
    return frame.reindex(columns=list(dict.fromkeys([*frame, *numbers]))).astype(dict.fromkeys(numbers, float))


def layers(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each surrogate, token type and layer, with R2 and cosine; baselines as a ``kind`` of k = 0."""
    rows = []
    for run in runs:
        for student, curves in run["layers"].items():
            labels = {key: run["partitions"][student][key] for key in ("k", "kind", "draw")}
            rows += [
                _keys(run)
                | labels
                | {"type": kind, "layer": layer, "r2": r2, "cosine": curves["cosine"][kind][layer - 1]}
                for kind, values in curves["r2"].items()
                for layer, r2 in enumerate(values, start=1)
            ]
        rows += [
            _keys(run) | {"k": 0, "kind": name, "type": kind, "layer": layer, "r2": r2}
            for name, by in run.get("baselines", {}).items()
            for kind, values in by.items()
            for layer, r2 in enumerate(values, start=1)
        ]
    return pd.DataFrame(rows)


def swaps(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each layer swap: its teacher, what was swapped, ``kept`` (top-1 over the teacher's), agreement."""
    rows = []
    for run in runs:
        teacher = _teacher(run)
        for swap in run["swaps"]:
            kept = swap["top1"] / teacher["top1"] if swap["top1"] is not None and teacher["top1"] else None
            rows.append({key: teacher[key] for key in KEYS} | swap | {"kept": kept})
    return pd.DataFrame(rows)
