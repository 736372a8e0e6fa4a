"""The table of a study: one row for each backbone, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from raptor.reporting.statistics import MeanCI
from raptor.runs.study import Run, Study, metric

NUMBERS = {
    "probe": "linear probe, top-1",
    "relative": "probe, share of the teacher's",
    "head": "teacher's head, top-1",
    "r2_cls": "R2 cls",
    "r2_registers": "R2 registers",
    "r2_patches": "R2 patches",
}
CAPTION = (
    "Mean ± standard deviation over seeds, on held-out data. Surrogates are judged at their last step, nothing is "
    "selected. Linear probe{rules}: one layer on [cls, mean patch] of the frozen final tokens. Share: of the mean "
    "probe accuracy of the teacher. Teacher's head: the surrogate's last layer through the teacher's own classifier. "
    "R2: mean over the layers 1..L, one scalar mean for each layer and token type, the teacher as reference. "
    "Untrained is a ViT of the teacher's shape with random weights."
)


def caption(study: Study) -> str:
    """What the numbers of a study are, with the rule by which its probes were selected."""
    shown = {run["selection"]["shown"]: run["selection"]["rules"] for run in study.runs if run.get("selection")}
    rules = "; ".join(f"{rule}: {texts[rule]}" for rule, texts in sorted(shown.items()))
    return CAPTION.format(rules=f" ({rules})" if rules else "")


def rows(study: Study) -> pd.DataFrame:
    """Table of a study in long form.

    Parameters
    ----------
    study
        Finished runs.

    Returns
    -------
    DataFrame
        One row for each backbone (untrained, k = 1, 2, ..., teacher), columns ``backbone``, ``boundaries``,
        ``solver``, ``block_share`` (parameters of the blocks over those of the teacher's), and for each of
        :data:`NUMBERS` its ``_mean``, ``_std``, ``_ci95`` and ``_n``.
    """
    probes, surrogates = study.probes(), study.surrogates()
    teacher_probe = MeanCI.of(metric(probes.get("teacher", []), "val/top1"))
    found = []
    if "untrained" in probes:
        found.append(_row("untrained", probes["untrained"], [], teacher_probe))
    for label in {**surrogates, **{name: [] for name in probes if name.startswith("k=")}}:
        found.append(_row(label, probes.get(label, []), surrogates.get(label, []), teacher_probe))
    if "teacher" in probes or study.of_task("classifier"):
        found.append(_row("teacher", probes.get("teacher", []), study.of_task("classifier"), teacher_probe))
    return pd.DataFrame(found)


def _row(label: str, probes: Sequence[Run], models: Sequence[Run], teacher_probe: MeanCI) -> dict[str, Any]:
    accuracies = metric(list(probes), "val/top1")
    spreads = {
        "probe": MeanCI.of(accuracies),
        "relative": MeanCI.of([a / teacher_probe.mean for a in accuracies] if teacher_probe.n else []),
        "head": MeanCI.of(metric(list(models), "val/top1")),
        **{name: MeanCI.of(metric(list(models), f"val/{name}")) for name in ("r2_cls", "r2_registers", "r2_patches")},
    }
    model = models[0]["model"] if models else {}
    share = model["block_parameters"] / model["teacher_block_parameters"] if "block_parameters" in model else None
    return {
        "backbone": label,
        "boundaries": model.get("boundaries"),
        "solver": model.get("solver"),
        "block_share": share,
        **{f"{name}_{part}": getattr(s, part) for name, s in spreads.items() for part in ("mean", "std", "ci95", "n")},
    }


def to_markdown(table: pd.DataFrame) -> str:
    """Table for people: percentages with their spread, a dash where there is nothing."""
    shown = pd.DataFrame({"backbone": table["backbone"]})
    shown["cut after"] = [_boundaries(value) for value in table["boundaries"]]
    shown["solver"] = [value if isinstance(value, str) else "—" for value in table["solver"]]
    shown["block parameters"] = [f"{100 * share:.0f} %" if share == share else "—" for share in _floats(table)]
    for name, title in NUMBERS.items():
        spreads = [
            MeanCI(*(row[f"{name}_{part}"] for part in ("mean", "std", "n", "ci95"))) for _, row in table.iterrows()
        ]
        percent = not name.startswith("r2")
        shown[title + (" (%)" if percent else "")] = [
            s.show(digits=1 if percent else 3, scale=100 if percent else 1) for s in spreads
        ]
    shown["seeds"] = [int(max(row["probe_n"], row["head_n"])) for _, row in table.iterrows()]
    shown = shown.loc[:, (shown != "—").any()]
    return shown.to_markdown(index=False, disable_numparse=True)


def _boundaries(value: Any) -> str:
    if not isinstance(value, list):
        return "—"
    return ", ".join(map(str, value)) or "nowhere"


def _floats(table: pd.DataFrame) -> list[float]:
    return [float("nan") if value is None else float(value) for value in table["block_share"]]


def runs_csv(study: Study) -> str:
    """Every run with its metrics, one line each."""
    keys = ("name", "task", "seed", "steps", "seconds")
    return pd.DataFrame([{key: run.get(key) for key in keys} | run["metrics"] for run in study.runs]).to_csv(
        index=False
    )
