"""The page of a run of ``raptor.dynamics``: findings, rates, figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptor.files import write_text
from raptor.partition.phases import phases_of
from raptor.partition.quality import quality
from raptor.results import dynamics_maps as maps
from raptor.results import dynamics_plots as plots
from raptor.results.dynamics_summary import Arrays, findings_table, judge_findings, rates, summary
from raptor.results.figures import NEUTRAL
from raptor.results.heatmap import heatmap
from raptor.results.page import write_page
from raptor.results.provenance import versions

BAND = "Line: mean over images; band: the middle 80 % of images; dotted: phase boundaries."


def write_dynamics(output: Path, networks: Mapping[str, Arrays], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write tables, figures and ``report.html``; returns findings and numbers as plain data.

    Parameters
    ----------
    output
        Run folder.
    networks
        Arrays of each network by name, the teacher first.
    about
        What was measured: teacher, weights, data, split, images.
    """
    findings = judge_findings(networks)
    source = f"{about['teacher']}, {about['images']} images of {about['data']} ({about['split']})"
    untrained = "untrained" if "untrained" in networks else "none: no untrained network was measured"
    tables = [
        (
            "Findings",
            findings_table(findings).to_markdown(index=False),
            f"{source}. Mean ± half width of the 95 % Student interval over images; each column is one network, so the "
            "intervals do not speak for other seeds or other teachers. The verdict is on the first network. Images "
            f"judged by class directions: the second half. Baseline: {untrained}.",
        )
    ]
    table = _rates_table(networks)
    if len(table):
        caption = (
            "Factor by which the angle to the undisturbed trajectory changes with each layer (least squares on its "
            "logarithm), mean ± half width of the 95 % interval over images: below 1 kicks shrink. Random directions."
        )
        tables.append(("Contraction", table.to_markdown(index=False), caption))
    for name, text, caption in tables:
        write_text(output / f"{name.lower()}.md", f"{text}\n\n{caption}\n")
    figures = _figures(networks, source)
    about_line = f"{source}; networks: {', '.join(networks)}. Weights: {about['weights'] or 'as the teacher has them'}."
    write_page(output, f"Dynamics of {about['teacher']}", about_line, tables, figures, versions())
    return {"findings": findings, "networks": {name: summary(arrays) for name, arrays in networks.items()}}


def _rates_table(networks: Mapping[str, Arrays]) -> pd.DataFrame:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, arrays in networks.items():
        for row in rates(arrays):
            if row["toward"] == "random":
                key = (row["tokens"], row["layer"], row["size"])
                first = {"tokens": row["tokens"], "kicked layer": row["layer"], "size": row["size"]}
                rows.setdefault(key, first)[name] = f"{row['rate']:.3f} ± {row['ci95']:.3f}"
    return pd.DataFrame([rows[key] for key in sorted(rows)])


CURVES: dict[str, tuple[str, str, dict[str, Any], str]] = {  # measure: title, label of its axis, options, a note
    "convergence": (
        "Directional convergence",
        "gamma = <x^(l), x^(L)>",
        {},
        "1 at the last layer by construction; dashed: the end of another image in its place, mean over all pairs. ",
    ),
    "speed": ("Angular speed", "angle to the layer before (degrees)", {"scale": float(np.degrees(1.0))}, ""),
    "norm": ("Norms", "|x|", {"log": True}, ""),
    "coherence": (
        "Coherence",
        "mean cosine to the mean direction",
        {},
        "Of random directions it is 1 over the root of their number. ",
    ),
    "effective_rank": (
        "Rank of the updates of an image",
        "effective rank",
        {"log": True},
        "Exponential of the entropy of the singular values of x^(l+1) - x^(l). ",
    ),
    "stable_rank": ("Stable rank of the updates of an image", "stable rank", {"log": True}, ""),
}


def _figures(networks: Mapping[str, Arrays], source: str) -> list[tuple[str, str, str, Figure]]:
    first = next(iter(networks.values()))
    n = len(first["curves/norm/patches"])
    figures: list[tuple[str, str, str, Figure]] = []

    def add(name: str, title: str, caption: str, figure: Figure) -> None:
        said = f"{caption} {source}, n = {n}."
        figure.text(
            0.01, -0.01, "\n".join(wrap(said, int(20 * figure.get_figwidth()))), size=6.5, color=NEUTRAL, va="top"
        )
        figures.append((name, title, said, figure))

    for measure, (title, label, options, note) in CURVES.items():
        if plots.kinds_of(networks, f"curves/{measure}/"):
            add(measure, title, note + BAND, plots.depth_curves(networks, f"curves/{measure}", label, **options))
    pooled = "All images at once: a matrix of one update for each token and image, decomposed."
    add("pooled_rank", "Rank of the updates of all images", pooled, plots.pooled_ranks(networks))
    judged = next((len(v) for key, v in first.items() if key.startswith("basins/final/")), 0)
    if judged:
        caption = f"Class directions are means over {n // 2} images, {judged} others are judged."
        add("basins", "Class-dependent angular basins", caption, plots.basins(networks))
    for kind in plots.kinds_of(networks, "kicks/random/"):
        kicked = next(len(v) for key, v in first.items() if key.startswith("kicks/random/") and key.endswith(kind))
        caption = f"All tokens of a layer are kicked. Means over {kicked} images."
        add(f"kicks_{kind}", f"Kicks and self-correction: {kind}", caption, plots.kicks(networks, kind))
    fitted = "Projected dynamic mode decomposition of directions, fitted on the first half of the images."
    for kind in maps.fitted_kinds(networks):
        title = f"Linear operators: eigenvalues, {kind}"
        add(f"spectra_{kind}", title, fitted, maps.operator_spectra(networks, kind))
    caption = f"One step ahead, on the second half; one number from all tokens, without an interval. {fitted}"
    add("operator_errors", "Linear operators: error", caption, maps.operator_errors(networks))
    at = next((len(v) for key, v in first.items() if key.startswith("jacobian/")), 0)
    if at:
        caption = f"A mark for each of {at} images. Directions: of the map from x^(l) to x^(l+1) with norms held."
        add("jacobians", "Jacobian of the last step of each phase", caption, maps.jacobians(networks))
    if any("hypothesis/surrogate/relative" in arrays for arrays in networks.values()):
        caption = f"Measured eps of the block-recurrent hypothesis. {BAND}"
        add("hypothesis", "Error of the surrogates", caption, plots.hypothesis(networks))
    shown = f"{len(first['shown/patches'])} images of those below."
    for kind in plots.kinds_of(networks, "shown/"):
        of = "the class token" if kind == "cls" else f"the mean of the {kind}"
        caption = f"Directions of {of}, layers 0 to L, each network in its own components; {shown}"
        add(f"projection_{kind}", f"Trajectories: {kind}", caption, maps.projections(networks, kind))
    caption = f"Each trajectory against the great circle from its own start to its own end; means over {shown}"
    add("great_circle", "Along the great circle", caption, maps.great_circles(networks))
    caption = "Cosine distance of class token and mean patch, the phases outlined."
    add("distance", "Distance between layers", caption, _heatmap(first, source))
    return figures


def _heatmap(arrays: Arrays, source: str) -> Figure:
    distance, boundaries = arrays["distance"], arrays["boundaries"].tolist()
    k = str(len(boundaries) + 1)
    phases = {
        "boundaries": {k: boundaries},
        "phases": {k: [list(p) for p in phases_of(boundaries, len(distance))]},
        "measures": {k: quality(distance, boundaries)},
        "solver": "exact",
    }
    return heatmap(distance, phases, source)
