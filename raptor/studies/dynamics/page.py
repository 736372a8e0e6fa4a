"""The page of a run of ``raptor.dynamics``: findings, rates, figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from raptor.partition.phases import phases_of
from raptor.partition.quality import quality
from raptor.reporting.heatmap import heatmap
from raptor.reporting.page import write_page
from raptor.runs.provenance import versions
from raptor.studies.dynamics import curves as plots
from raptor.studies.dynamics import maps
from raptor.studies.dynamics.findings import Arrays, judge_findings
from raptor.studies.dynamics.panels import kinds_of
from raptor.studies.dynamics.summary import errors_table, findings_table, jumps_table, rates_table, summary
from raptor.utils.files import write_text

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
        What was measured: ``teacher``, ``weights``, ``trained``, ``data``, ``split``, ``images``, ``tokens`` of the
        distance, and whether the phases were ``given``.
    """
    findings = judge_findings(networks, given=about["given"])
    source = f"{about['teacher']}, {about['images']} images of {about['data']} ({about['split']})"
    untrained = "untrained" if "untrained" in networks else "none: no untrained network was measured"
    tables = {
        "findings": (
            "Findings",
            findings_table(findings).to_markdown(index=False),
            f"{source}. Mean ± half width of the 95 % Student interval over images; each column is one network, so the "
            "intervals do not speak for other seeds or other teachers. The verdict is on the first network; beside the "
            "untrained one by the difference within images. Jumps of an untrained network are at cuts by its own "
            f"distance. Baseline: {untrained}. Kicks: {_count(networks, 'kicks/')} images; class directions: "
            f"{_count(networks, 'basins/')} images judged.",
        )
    }
    errors = errors_table(networks)
    if len(errors):
        caption = (
            f"Measured eps of the block-recurrent hypothesis, relative to the norm of the teacher's layer. {source}. "
            "Mean ± half width of the 95 % interval over images, where that mean is largest, and at the last."
        )
        tables["errors"] = ("Error of the surrogates", errors.to_markdown(index=False), caption)
    jumps = jumps_table(networks, about["given"])
    if len(jumps):
        caption = (
            "Mean step into a new phase minus mean of the other steps from layer 1 on. Phases are cut from the same "
            "directions, so a jump is no surprise by itself: the last column counts, of other contiguous partitions "
            f"into as many phases, those with a jump at least as large on average. {source}. Mean ± half width of the "
            "95 % interval over images."
        )
        tables["jumps"] = ("Speed jumps at phase boundaries", jumps.to_markdown(index=False), caption)
    contraction = rates_table(networks)
    if len(contraction):
        caption = (
            "Factor by which the angle to the undisturbed trajectory changes with each layer (least squares on its "
            "logarithm), mean ± half width of the 95 % interval over images: below 1 kicks shrink; in brackets if it "
            "were carried along unchanged. In a random direction, or toward another class. "
            f"{_count(networks, 'kicks/')} images of {source}."
        )
        tables["contraction"] = ("Contraction of kicks", contraction.to_markdown(index=False), caption)
    for name, (_, text, caption) in tables.items():
        write_text(output / f"{name}.md", f"{text}\n\n{caption}\n")
    figures = _figures(networks, source, about)
    weights = about["weights"] or ("published" if about["trained"] else "random")
    about_line = f"{source}; networks: {', '.join(networks)}. Weights: {weights}."
    write_page(output, f"Dynamics of {about['teacher']}", about_line, list(tables.values()), figures, versions())
    return {"findings": findings, "networks": {name: summary(arrays) for name, arrays in networks.items()}}


CURVES: dict[str, tuple[str, str, dict[str, Any], str]] = {  # measure: title, label of its axis, options, a note
    "convergence": (
        "Directional convergence",
        "gamma = <x^(l), x^(L)>",
        {},
        "1 at the last layer by construction; dashed: the end of another image in its place, mean over all "
        "pairs; dotted (cls): the mean end of its class, of other images, for the second half of the images. ",
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


def _count(networks: Mapping[str, Arrays], prefix: str) -> int:
    """How many images arrays that begin so are of; 0 where there are none."""
    first = next(iter(networks.values()))
    return next((len(v) for key, v in first.items() if key.startswith(prefix) and v.ndim == 2), 0)


def _figures(
    networks: Mapping[str, Arrays], source: str, about: Mapping[str, Any]
) -> list[tuple[str, str, str, Figure]]:
    first = next(iter(networks.values()))
    n = len(first["curves/norm/patches"])
    figures: list[tuple[str, str, str, Figure]] = []

    def add(name: str, title: str, caption: str, figure: Figure, count: int = n) -> None:
        figures.append((name, title, f"{caption} {source}, n = {count}.", figure))

    for measure, (title, label, options, note) in CURVES.items():
        if kinds_of(networks, f"curves/{measure}/"):
            add(measure, title, note + BAND, plots.depth_curves(networks, f"curves/{measure}", label, **options))
    pooled = "All images at once: a matrix of one update for each token and image, decomposed."
    if maps.fitted_kinds(networks):
        add("pooled_rank", "Rank of the updates of all images", pooled, plots.pooled_ranks(networks))
    if judged := _count(networks, "basins/"):
        caption = (
            f"Directions of {int(first['basins/classes'])} classes are means over {n // 2} images; others of these "
            "classes are judged. Bands: 95 % intervals (Wilson). Chance: at random, or always the largest class."
        )
        add("basins", "Class-dependent angular basins", caption, plots.basins(networks), judged)
    for kind in kinds_of(networks, "kicks/random/"):
        caption = "All tokens of a layer are kicked. Means over images with their 95 % intervals."
        kicked = plots.kicks(networks, kind)
        add(f"kicks_{kind}", f"Kicks and self-correction: {kind}", caption, kicked, _count(networks, "kicks/"))
    fitted = "Projected dynamic mode decomposition of directions, fitted on the first half of the images."
    for kind in maps.fitted_kinds(networks):
        title = f"Linear operators: eigenvalues, {kind}"
        add(f"spectra_{kind}", title, fitted, maps.operator_spectra(networks, kind))
    if maps.fitted_kinds(networks):
        caption = f"One step ahead, on the second half; one number from all tokens, without an interval. {fitted}"
        add("operator_errors", "Linear operators: error", caption, maps.operator_errors(networks))
    if at := _count(networks, "jacobian/"):
        caption = "A mark for each image. Directions: of the map from x^(l) to x^(l+1) with norms held."
        add("jacobians", "Jacobian of the last step of each phase", caption, maps.jacobians(networks), at)
    if any("hypothesis/surrogate/relative" in arrays for arrays in networks.values()):
        caption = f"Measured eps of the block-recurrent hypothesis. {BAND}"
        add("hypothesis", "Error of the surrogates", caption, plots.hypothesis(networks))
    shown = len(first["shown/patches"])
    for kind in kinds_of(networks, "shown/"):
        of = "the class token" if kind == "cls" else f"the mean of the {kind}"
        caption = f"Directions of {of}, layers 0 to L, each network in its own components. Rings: phases end."
        add(f"projection_{kind}", f"Trajectories: {kind}", caption, maps.projections(networks, kind), shown)
    caption = "Each trajectory against the great circle from its own start to its own end; means."
    add("great_circle", "Along the great circle", caption, maps.great_circles(networks), shown)
    caption = f"Cosine distance, mean over {' and '.join(about['tokens'])}; the phases outlined."
    add("distance", "Distance between layers", caption, _heatmap(first, source, "given" if about["given"] else "exact"))
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
