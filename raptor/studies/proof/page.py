"""Write the report of an existence proof: numbers, tables, figures, and one page."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pandas as pd
from matplotlib.figure import Figure

from raptor.reporting.page import write_study_page
from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import Table
from raptor.runs.study import Study
from raptor.studies.proof import figures
from raptor.studies.proof.criteria import criteria
from raptor.studies.proof.rows import Numbers, above_floor, final_readouts, gather, references, shares
from raptor.utils.files import write_json

TEMPLATES = Path(__file__).parent / "templates"
NUMBERS = "numbers.json"
DRAW = {  # name of the file, title, function
    "accuracy_by_layer": ("Accuracy by layer", figures.accuracy_by_layer),
    "fidelity_by_layer": ("Fidelity by layer", figures.fidelity_by_layer),
    "over_images": ("Fidelity and accuracy over images seen", figures.curves_over_images),
    "colour_maps": ("Patches by layer", figures.colour_maps),
}


def write_proof(study: Study, output: Path, title: str) -> str:
    """Write numbers, tables, figures and page of a study of ``task=readout``; return the tables as Markdown.

    Parameters
    ----------
    study
        Runs of ``task=readout`` and ``task=finetune``.
    output
        Folder to write to; made if missing.
    title
        Heading of the page.
    """
    numbers = gather(study)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / NUMBERS, numbers)
    made = tables(numbers)
    for table in made:
        table.write_markdown(output)
    pictures = [(name, heading, caption(name, TEMPLATES), figure) for name, heading, figure in drawn(numbers)]
    write_study_page(study, output, title, made, pictures)
    return "\n\n".join(f"{table.to_markdown()}\n\n{table.caption}" for table in made)


def drawn(numbers: Numbers) -> list[tuple[str, str, Figure]]:
    """Draw every figure that there are numbers for: name of the file, title, figure."""
    made = [(name, heading, draw(numbers)) for name, (heading, draw) in DRAW.items()]
    return [(name, heading, figure) for name, heading, figure in made if figure is not None]


def tables(numbers: Numbers) -> list[Table]:
    """Make every table that there are numbers for."""
    made = [
        Table("criteria", "Conditions of success", conditions(numbers), caption("criteria", TEMPLATES)),
        Table("accuracy", "What probes read off the last layer", accuracies(numbers), caption("accuracy", TEMPLATES)),
        Table("exits", "What ridge regression reads off each layer", exits(numbers), caption("exits", TEMPLATES)),
    ]
    if numbers["models"]:
        made.append(Table("fidelity", "Fidelity", fidelity(numbers), caption("fidelity", TEMPLATES)))
    return made


def conditions(numbers: Numbers) -> pd.DataFrame:
    """Make a row for each condition of success."""
    shown = [(criterion.text, criterion.measured or "-", criterion.verdict) for criterion in criteria(numbers)]
    return pd.DataFrame(shown, columns=["condition", "measured", "verdict"])


def accuracies(numbers: Numbers) -> pd.DataFrame:
    """Make a row for each model and data set, the mean over its seeds."""
    groups: dict[tuple[str, str], list[Numbers]] = {}
    for readout in final_readouts(numbers).values():
        groups.setdefault((readout["data"], readout["label"]), []).append(readout)
    rows = []
    for (data, label), members in groups.items():
        row = {"data": data, "network": label, "block parameters": f"{100 * members[0]['blocks']:.0f} %"}
        for probe, name in (("ridge", "ridge"), ("knn", "k-NN")):
            found = [shares(r, numbers, probe) for r in members]
            row[f"{name} top-1 (%)"] = _show([f["accuracy"] for f in found])
            row[f"{name}, share of the teacher's (%)"] = _show([f["share"] for f in found])
            row[f"{name}, share of the gap (%)"] = _show([f["gap"] for f in found])
        row["standard error (points)"] = f"{100 * fmean(r['standard_error'] for r in members):.1f}"
        row["common neighbours (%)"] = _show([r["neighbours"]["overlap"] for r in members])
        row["seeds"] = str(len(members))
        rows.append(row)
    return pd.DataFrame(rows)


def exits(numbers: Numbers) -> pd.DataFrame:
    """Make a row for each network, a column for each layer."""
    data = next(iter(references(numbers).values()))["data"]
    rows = []
    for name, readout in final_readouts(numbers).items():
        if readout["data"] == data:
            values = {str(i): f"{100 * value:.1f}" for i, value in enumerate(readout["accuracy"]["ridge"])}
            rows.append({"run": name, "network": readout["label"], **values})
    return pd.DataFrame(rows)


def fidelity(numbers: Numbers) -> pd.DataFrame:
    """Make a row for each model: R2 centred and cosine, and by how much it is above the best floor."""
    rows = []
    for name, model in numbers["models"].items():
        row = {"run": name, "network": model["label"], "images": model["images"] or "not known"}
        above = above_floor(model)
        for kind, values in model["layers"]["r2_centered"].items():
            row[f"R2 centred {kind}"] = f"{fmean(values):.3f}"
            row[f"least above the best floor, {kind}"] = f"{min(above[kind]):+.3f}"
            row[f"layers above, {kind}"] = f"{sum(x > 0 for x in above[kind])} of {len(values)}"
            row[f"cosine {kind}"] = f"{fmean(model['layers']['cosine'][kind]):.3f}"
            row[f"eps {kind}"] = f"{fmean(model['layers']['eps'][kind]):.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _show(values: list[float | None]) -> str:
    return MeanCI.of([x for x in values if x is not None]).show(digits=1, scale=100.0)
