"""The conditions of success, written down before the runs, and whether the numbers meet them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raptor.reporting.statistics import MeanCI
from raptor.studies.proof.rows import CONTROL, TEACHER, Numbers, above_floor, final_readouts, references, shares

REQUIRED = {2: 0.96, 3: 0.98}  # share of the teacher's accuracy, by number of blocks
MET, MISSED, OPEN = "met", "not met", "not measured"


class Criterion(NamedTuple):
    """A condition of success.

    Attributes
    ----------
    text
        What is required.
    measured
        What came out.
    verdict
        ``met``, ``not met`` or ``not measured``.
    """

    text: str
    measured: str
    verdict: str


def criteria(numbers: Numbers) -> list[Criterion]:
    """Compare the numbers of a study with every condition."""
    return [
        _teacher(numbers),
        *(_share(numbers, k, least) for k, least in REQUIRED.items()),
        *(_controls(numbers, k) for k in REQUIRED),
        *(_floors(numbers, k) for k in REQUIRED),
    ]


def _teacher(numbers: Numbers) -> Criterion:
    rows = references(numbers)
    text = "the teacher's accuracy rises with depth to its last layer, the untrained control's is far below"
    if CONTROL not in rows:
        return Criterion(text, "", OPEN)
    teacher, control = (rows[name]["accuracy"]["ridge"] for name in (TEACHER, CONTROL))
    rises = teacher[-1] == max(teacher) and teacher[-1] > 2 * max(control)
    measured = f"{100 * teacher[0]:.1f} % at layer 0, {100 * teacher[-1]:.1f} % at the last (highest: layer "
    measured += f"{teacher.index(max(teacher))}); control at most {100 * max(control):.1f} %"
    return Criterion(text, measured, MET if rises else MISSED)


def _of_k(numbers: Numbers, k: int) -> list[tuple[Numbers, Numbers]]:
    """Pair models of k tied blocks with their readouts on the teacher's data."""
    data = next(iter(references(numbers).values()))["data"]
    return [
        (numbers["models"][r["backbone"]], r)
        for r in final_readouts(numbers).values()
        if r["data"] == data and r["backbone"] in numbers["models"]
        if (m := numbers["models"][r["backbone"]])["kind"] == "surrogate" and m["k"] == k
    ]


def _share(numbers: Numbers, k: int, least: float) -> Criterion:
    text = f"share of the teacher's accuracy at k={k} at least {100 * least:.0f} %"
    found = [shares(readout, numbers)["share"] for _, readout in _of_k(numbers, k)]
    values = [x for x in found if x is not None]
    if not values:
        return Criterion(text, "", OPEN)
    mean = MeanCI.of(values)
    return Criterion(text, f"{mean.show(1, 100.0)} % ({mean.n} seeds)", MET if mean.mean >= least else MISSED)


def _controls(numbers: Numbers, k: int) -> Criterion:
    text = f"lower end of the 95 % interval at k={k} above every control at equal parameters"
    ours = [r["accuracy"]["ridge"][-1] for _, r in _of_k(numbers, k)]
    rivals = {
        name: numbers["readouts"][name]["accuracy"]["ridge"][-1]
        for name, r in final_readouts(numbers).items()
        if (m := numbers["models"].get(r["backbone"])) and m["kind"] == "rival" and m["k"] == k
    }
    if len(ours) < 2 or not rivals:
        return Criterion(text, f"{len(ours)} seeds, {len(rivals)} controls", OPEN)
    mean = MeanCI.of(ours)
    best = max(rivals, key=lambda name: rivals[name])
    measured = f"{100 * (mean.mean - mean.ci95):.1f} % against {100 * rivals[best]:.1f} % of {best}"
    return Criterion(text, measured, MET if mean.mean - mean.ci95 > rivals[best] else MISSED)


def _floors(numbers: Numbers, k: int) -> Criterion:
    text = f"R2 centred above the best floor at every layer and token type at k={k}"
    models = [m for m in numbers["models"].values() if m["kind"] == "surrogate" and m["k"] == k and m["floors"]]
    if not models:
        return Criterion(text, "", OPEN)
    above = [above_floor(model) for model in models]
    kinds: Sequence[str] = list(above[0])
    parts, whole = [], True
    for kind in kinds:
        values = [x for by in above for x in by[kind]]
        whole = whole and min(values) > 0
        parts.append(f"{kind}: {sum(x > 0 for x in values)} of {len(values)} layers, least {min(values):+.2f}")
    return Criterion(text, "; ".join(parts), MET if whole else MISSED)
