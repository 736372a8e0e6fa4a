"""The table of a study: one row for each backbone and way of probing it, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from raptor.models.token_types import TOKEN_TYPES
from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import NOTHING, Table, show_mean
from raptor.runs.groups import RunGroup, number
from raptor.runs.labels import differences, join
from raptor.runs.study import Run, Study

TEACHER, UNTRAINED = "teacher", "untrained"
PARTS = ("mean", "std", "ci95", "n", "expected")
OF_BACKBONE = ("task.backbone", "task.label", "teacher.", "surrogate.", "activations.")  # no settings of a probe
NUMBERS = {  # column: title, decimals, factor
    **{f"r2_centered_{kind}": (f"R2 centred {kind}", 3, 1.0) for kind in TOKEN_TYPES},
    **{f"above_floor_{kind}": (f"above best floor {kind}", 3, 1.0) for kind in TOKEN_TYPES},
    "probe": ("linear probe, top-1 (%)", 1, 100.0),
    "relative": ("probe, share of the teacher's (%)", 1, 100.0),
    "head": ("teacher's head, top-1 (%)", 1, 100.0),
    **{f"r2_{kind}": (f"R2 scalar mean {kind}", 3, 1.0) for kind in TOKEN_TYPES},
}


@dataclass
class Backbone:
    """One row of the table.

    Parameters
    ----------
    label
        What it is called.
    models
        Runs that trained it, None where the study has none.
    probes
        Linear probes of it, all with the same settings; None where it has none.
    """

    label: str
    models: RunGroup | None = None
    probes: RunGroup | None = None


def backbones(study: Study) -> list[Backbone]:
    """Return the rows of a study: untrained controls, other networks, k = 1, 2, ..., the teacher.

    A probe belongs to the run that it reads; where that is no run of the study, it has a row of its own.
    """
    trained, probes = [*study.surrogates(), *study.groups("classifier")], study.probes()
    found: list[Backbone] = []
    for models in trained:
        own = [probe for probe in probes if study.backbone_of(probe) == models.key]
        found += [
            Backbone(join(models.label, differing, "; probe "), models, probe)
            for probe, differing in zip(own, differences(own), strict=True)
        ] or [Backbone(models.label, models)]
    keys, labels = {models.key for models in trained}, {models.label for models in trained}
    apart = [probe for probe in probes if study.backbone_of(probe) not in keys]
    controls = [Backbone(_apart(probe, labels), None, probe) for probe in apart]
    first = [row for row in controls if not row.label.startswith((TEACHER, "k="))]
    first.sort(key=lambda row: not row.label.startswith(UNTRAINED))
    last = [row for row in [*found, *controls] if row.label.startswith(TEACHER)]
    return [*first, *(row for row in [*found, *controls] if row not in first and row not in last), *last]


def _apart(probe: RunGroup, labels: set[str]) -> str:
    """Name of a row whose backbone no run of the study trained."""
    if probe.label not in labels:
        return probe.label
    folders = {str(run["model"]["backbone"].get("folder")) for run in probe.runs}
    return f"{probe.label}, read from {', '.join(sorted(folders)) or 'elsewhere'}"


def rows(study: Study) -> pd.DataFrame:
    """Return the table of a study in long form.

    Returns
    -------
    DataFrame
        One row for each of :func:`backbones`, columns ``backbone``, ``boundaries``, ``solver``, ``block_share``
        (parameters of the blocks over those of the teacher's), ``seeds``, ``notes`` (repeats, unfinished runs), and for
        each of :data:`NUMBERS` its ``_mean``, ``_std``, ``_ci95``, ``_n`` (seeds with a value) and ``_expected``.
    """
    found = backbones(study)
    kinds = [kind for kind in TOKEN_TYPES if any(f"val/r2_{kind}" in run["metrics"] for run in study.runs)]
    teachers = [row.probes for row in found if row.probes is not None and row.label.startswith(TEACHER)]
    return pd.DataFrame([_row(row, kinds, teachers) for row in found])


def _row(row: Backbone, kinds: Sequence[str], teachers: Sequence[RunGroup]) -> dict[str, Any]:
    models, probes = row.models, row.probes
    surrogate = models is not None and models.records[0].task != "classifier"
    values: dict[str, tuple[list[float], int]] = dict.fromkeys(NUMBERS, ([], 0))
    if models is not None:
        values["head"] = models.values("val/top1"), models.expected
    if models is not None and surrogate:
        for kind in kinds:
            for name in (f"r2_centered_{kind}", f"r2_{kind}"):
                values[name] = models.values(f"val/{name}"), models.expected
            above = models.by_seed(lambda run, kind=kind: above_floor(run, kind))  # type: ignore[misc]
            values[f"above_floor_{kind}"] = [sum(v) / len(v) for v in above], models.expected
    if probes is not None:
        accuracies = probes.values("val/top1")
        values["probe"] = accuracies, probes.expected
        if teachers:
            like = [group for group in teachers if settings_of_probe(group) == settings_of_probe(probes)]
            base = MeanCI.of(like[0].values("val/top1") if like else []).mean
            values["relative"] = [a / base for a in accuracies] if base > 0 else [], probes.expected
    means = {name: (MeanCI.of(of_seeds), expected) for name, (of_seeds, expected) in values.items()}
    return {
        "backbone": row.label,
        **(_of_surrogate(models) if models is not None and surrogate else {"boundaries": None, "solver": None}),
        "seeds": max(len(group.by_seed(lambda run: run)) for group in (models, probes) if group is not None),
        "notes": _notes(models, probes),
        **{
            f"{name}_{part}": expected if part == "expected" else getattr(mean, part)
            for name, (mean, expected) in means.items()
            for part in PARTS
        },
    }


def above_floor(run: Run, kind: str) -> float | None:
    """Return by how much R2 centred lies above the best floor, mean over layers; None where it was not measured."""
    above = run.get("above_floor")
    return number(above.get(kind)) if isinstance(above, dict) else None


def settings_of_probe(group: RunGroup) -> dict[str, Any]:
    """Return how a probe is trained, apart from what it reads."""
    return {key: value for key, value in group.options.items() if not key.startswith(OF_BACKBONE)}


def _of_surrogate(models: RunGroup) -> dict[str, Any]:
    about = [run["model"] for run in models.runs]
    cuts = list(dict.fromkeys(str(model.get("boundaries")) for model in about))
    share = None
    if about and number(about[0].get("block_parameters")) and number(about[0].get("teacher_block_parameters")):
        share = about[0]["block_parameters"] / about[0]["teacher_block_parameters"]
    return {
        "boundaries": about[0].get("boundaries") if len(cuts) == 1 else " or ".join(cuts) or None,
        "solver": ", ".join(dict.fromkeys(str(model["solver"]) for model in about if model.get("solver"))) or None,
        "block_share": share,
    }


def _notes(models: RunGroup | None, probes: RunGroup | None) -> str:
    notes = [models.about_runs() if models is not None else ""]
    if probes is not None and (of_probes := probes.about_runs()):
        notes.append(f"probe: {of_probes}" if models is not None else of_probes)
    return "; ".join(filter(None, notes))


def overview(study: Study, values: pd.DataFrame, name: str = "table") -> Table:
    """Return the table as it is shown: percentages with their spread, a dash where nothing is measured.

    Parameters
    ----------
    study
        Names the rules by which its probes were selected.
    values
        Of :func:`rows`.
    name
        Stem of the files.
    """
    shown = pd.DataFrame({"backbone": values["backbone"]})
    shown["cut after"] = [_boundaries(value) for value in values["boundaries"]]
    shown["solver"] = [value if isinstance(value, str) else NOTHING for value in values["solver"]]
    shares = values.get("block_share", pd.Series(np.nan, values.index)).astype(float)
    shown["block parameters"] = [f"{100 * share:.0f} %" if share == share else NOTHING for share in shares]
    for column, (title, digits, scale) in NUMBERS.items():
        shown[title] = [
            show_mean(_mean_of(row, column), int(row[f"{column}_expected"]), digits, scale)
            for row in values.to_dict("records")
        ]
    shown["seeds"] = [str(n) for n in values["seeds"]]
    shown["runs"] = [note or NOTHING for note in values["notes"]]
    shown = shown.loc[:, (shown != NOTHING).any()]
    return Table(name, name.capitalize(), shown, caption("overview", rules=rules_of(study)))


def _mean_of(row: Mapping[Hashable, Any], column: str) -> MeanCI:
    mean, std, ci95 = (float(row[f"{column}_{part}"]) for part in ("mean", "std", "ci95"))
    return MeanCI(mean, std, int(row[f"{column}_n"]), ci95)


def rules_of(study: Study) -> list[str]:
    """Return the rules by which the probes of a study were selected, in words."""
    selections = [run["selection"] for run in study.runs if isinstance(run.get("selection"), dict)]
    shown = {s["shown"]: s.get("rules", {}).get(s["shown"], "") for s in selections if "shown" in s}
    return [f"{rule}: {text}" for rule, text in sorted(shown.items())]


def _boundaries(value: Any) -> str:
    if isinstance(value, str):
        return value
    return (", ".join(map(str, value)) or "nowhere") if isinstance(value, list) else NOTHING


def runs_csv(study: Study) -> str:
    """Return every finished run with its metrics, one line each."""
    keys = ("name", "task", "seed", "steps", "seconds")
    return pd.DataFrame([{key: run.get(key) for key in keys} | run["metrics"] for run in study.runs]).to_csv(
        index=False
    )


def runs_table(study: Study) -> Table:
    """Return the list of all runs, finished or not, with what failed ones say."""
    lines = []
    for record in study.records:
        run = record.result or {}
        lines.append(
            {
                "run": record.name,
                "task": record.task or NOTHING,
                "seed": NOTHING if record.seed is None else str(record.seed),
                "state": record.state,
                "steps": str(run.get("steps", NOTHING)),
                "seconds": str(run.get("seconds", NOTHING)),
                "attempts": str(run.get("attempts", NOTHING)),
                "weights": str(run.get("weights_sha256", ""))[:12] or NOTHING,
                "error": record.error or NOTHING,
            }
        )
    shown = pd.DataFrame(lines)
    return Table("runs", "Runs", shown.loc[:, (shown != NOTHING).any()], caption("runs"))
