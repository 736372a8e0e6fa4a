#!/usr/bin/env python3
"""Write docs/results/clip_photos.md and its figures from docs/results/clip_photos.json.

``--gather RUNS`` first makes the JSON from the run folders of experiment=clip_photos; ``--trials FILE ...`` adds the
trials that chose the settings, JSON with a name, images and scores each. Without either, it makes the page of the JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jinja2

from raptor.reporting.prose import caption
from raptor.reporting.style import save_figure
from raptor.runs.study import Study
from raptor.studies.proof.page import TEMPLATES, drawn, tables
from raptor.studies.proof.rows import gather
from raptor.utils.files import read_json, write_json, write_text

DOCS = Path(__file__).parents[1] / "docs"
NUMBERS, PAGE = DOCS / "results" / "clip_photos.json", DOCS / "results" / "clip_photos.md"


def collect(runs: Path) -> dict[str, Any]:
    """Return the numbers of a study, and the phases that its surrogates have."""
    phases = read_json(runs / "phases" / "phases.json") or {}
    return {"phases": phases.get("boundaries", {}), **gather(Study(runs))}


def trial(path: Path) -> dict[str, Any]:
    """Return what the page shows of a trial."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return {key: values[key] for key in ("name", "settings", "images", "start", "end", "seconds")}


def render(numbers: dict[str, Any], figures: list[str]) -> str:
    """Return the page."""
    shown = {table.name: f"{table.to_markdown()}\n\n{table.caption}" for table in tables(numbers)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template("clip_photos.md.j2")
    captions = {name: caption(name, TEMPLATES) for name in figures}
    return page.render(numbers=numbers, tables=shown, figures=captions, trials=numbers.get("trials", []))


def main() -> None:
    """Gather where asked, then write page and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gather", type=Path, metavar="RUNS", help="folder of the study, such as runs/clip_photos")
    parser.add_argument("--trials", type=Path, nargs="*", default=[], metavar="FILE")
    arguments = parser.parse_args()
    numbers = read_json(NUMBERS) or {}
    if arguments.gather:
        numbers = {"trials": numbers.get("trials", []), **collect(arguments.gather)}
    if arguments.trials:
        numbers["trials"] = [trial(path) for path in arguments.trials]
    write_json(NUMBERS, numbers)
    names = []
    for name, _, figure in drawn(numbers):
        _, pdf = save_figure(figure, DOCS / "figures" / f"clip_photos_{name}")
        pdf.unlink()
        names.append(name)
    write_text(PAGE, render(numbers, names))


if __name__ == "__main__":
    main()
