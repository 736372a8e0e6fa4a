"""Write the page of a run of ``raptor.dynamics``: findings, controls, rates, figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raptor.partition.phases import phases_of
from raptor.partition.quality import quality
from raptor.reporting.heatmap import heatmap
from raptor.reporting.page import Picture, write_page
from raptor.reporting.prose import caption
from raptor.reporting.table import Table
from raptor.runs.provenance import versions
from raptor.studies.dynamics import curves as plots
from raptor.studies.dynamics import maps
from raptor.studies.dynamics.controls import control_verdicts
from raptor.studies.dynamics.findings import evaluate_findings
from raptor.studies.dynamics.panels import kinds_of
from raptor.studies.dynamics.rules import Arrays
from raptor.studies.dynamics.summary import (
    errors_table,
    findings_table,
    jumps_table,
    multistep_table,
    rates_table,
    rollout_table,
    summary,
)

TEMPLATES = Path(__file__).parent / "templates"


def write_dynamics(output: Path, networks: Mapping[str, Arrays], about: Mapping[str, Any]) -> dict[str, Any]:
    """Write tables, figures and ``report.html``; return findings and numbers as plain data.

    Parameters
    ----------
    output
        Run folder.
    networks
        Arrays of each network by name, the teacher first.
    about
        What was measured: ``teacher``, ``weights``, ``trained``, ``data``, ``split``, ``images``, ``tokens`` of the
        distance, and whether the phases were ``given``.
    """
    findings = evaluate_findings(networks, given=about["given"])
    source = f"{about['teacher']}, {about['images']} images of {about['data']} ({about['split']})"
    frames = {
        "findings": ("Findings", findings_table(findings)),
        "controls": ("Controls of the rules", pd.DataFrame(control_verdicts())),
        "errors": ("Error of the surrogates", errors_table(networks)),
        "jumps": ("Speed jumps at phase boundaries", jumps_table(networks, given=about["given"])),
        "contraction": ("Contraction of perturbations", rates_table(networks)),
        "multistep": ("Linear operators over several steps", multistep_table(networks)),
        "rollout": ("The surrogate of operators", rollout_table(networks)),
    }
    counts = {"perturbed": _count(networks, "perturbed/"), "evaluated": _count(networks, "basins/")}
    values = {"source": source, "untrained": "untrained" in networks, **counts}
    tables = [
        Table(name, title, frame, caption(name, TEMPLATES, **values))
        for name, (title, frame) in frames.items()
        if len(frame)
    ]
    for table in tables:
        table.write_markdown(output)
    figures = _figures(networks, source, about)
    weights = about["weights"] or ("published" if about["trained"] else "random")
    about_line = f"{source}; networks: {', '.join(networks)}. Weights: {weights}."
    write_page(output, f"Dynamics of {about['teacher']}", about_line, tables, figures, versions())
    return {"findings": findings, "networks": {name: summary(arrays) for name, arrays in networks.items()}}


CURVES: dict[str, tuple[str, str, dict[str, Any]]] = {  # measure: title, label of its axis, options
    "convergence": ("Directional convergence", "gamma = <x^(l), x^(L)>", {}),
    "speed": ("Angular speed", "angle to the layer before (degrees)", {"scale": float(np.degrees(1.0))}),
    "norm": ("Norms", "|x|", {"log": True}),
    "coherence": ("Coherence", "mean cosine to the mean direction", {}),
    "effective_rank": ("Rank of the updates of an image", "effective rank", {"log": True}),
    "stable_rank": ("Stable rank of the updates of an image", "stable rank", {"log": True}),
}


def _count(networks: Mapping[str, Arrays], prefix: str) -> int:
    """Count the images of the arrays that begin so; 0 where there are none."""
    first = next(iter(networks.values()))
    return next((len(v) for key, v in first.items() if key.startswith(prefix) and v.ndim == 2), 0)


def _figures(networks: Mapping[str, Arrays], source: str, about: Mapping[str, Any]) -> list[Picture]:
    first = next(iter(networks.values()))
    n, evaluated = len(first["curves/norm/patches"]), _count(networks, "basins/")
    perturbed, at, shown = _count(networks, "perturbed/"), _count(networks, "jacobian/"), len(first["shown/patches"])
    classes = int(first["basins/classes"]) if evaluated else 0
    figures: list[Picture] = []

    def add(name: str, title: str, figure: Figure, count: int = n, text: str = "", **values: Any) -> None:
        figures.append((name, title, caption(text or name, TEMPLATES, source=source, n=count, **values), figure))

    for measure, (title, label, options) in CURVES.items():
        if kinds_of(networks, f"curves/{measure}/"):
            add(measure, title, plots.depth_curves(networks, f"curves/{measure}", label, **options), text="curves",
                measure=measure)  # fmt: skip
    if maps.fitted_kinds(networks):
        add("pooled_rank", "Rank of the updates of all images", plots.pooled_ranks(networks))
    if evaluated:
        figure = plots.basins(networks)
        add("basins", "Class-dependent angular basins", figure, evaluated, classes=classes, fitted=n // 2)
    for kind in kinds_of(networks, "perturbed/random/"):
        title, figure = f"Perturbations and self-correction: {kind}", plots.perturbations(networks, kind)
        add(f"perturbations_{kind}", title, figure, perturbed, text="perturbations")
    for kind in maps.fitted_kinds(networks):
        title = f"Linear operators: eigenvalues, {kind}"
        add(f"spectra_{kind}", title, maps.operator_spectra(networks, kind), text="spectra")
    if maps.fitted_kinds(networks):
        add("operator_errors", "Linear operators: error", maps.operator_errors(networks))
    if rolled := _count(networks, "rollout/"):
        add("rollouts", "The surrogate of operators", plots.rollouts(networks), rolled)
    if at:
        add("jacobians", "Jacobian of the last step of each phase", maps.jacobians(networks), at)
    if any("hypothesis/surrogate/relative" in arrays for arrays in networks.values()):
        add("hypothesis", "Error of the surrogates", plots.hypothesis(networks))
    for kind in kinds_of(networks, "shown/"):
        figure = maps.projections(networks, kind)
        add(f"projection_{kind}", f"Trajectories: {kind}", figure, shown, text="projection", kind=kind)
    add("great_circle", "Along the great circle", maps.great_circles(networks), shown)
    figure = _heatmap(first, source, "given" if about["given"] else "exact")
    add("distance", "Distance between layers", figure, tokens=list(about["tokens"]))
    return figures


def _heatmap(arrays: Arrays, source: str, solver: str) -> Figure:
    distance, boundaries = arrays["distance"], arrays["boundaries"].tolist()
    k = str(len(boundaries) + 1)
    phases = {
        "boundaries": {k: boundaries},
        "phases": {k: [list(p) for p in phases_of(boundaries, len(distance))]},
        "measures": {k: quality(distance, boundaries)},
        "solver": solver,
    }
    return heatmap(distance, phases, source)
