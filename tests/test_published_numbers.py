"""The numbers that README and docs quote are those of the files that they name."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.files import ASSETS, read_json

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def tables(page: Path) -> list[list[list[str]]]:
    """Cells of every row of every table of a page, bold marks left out."""
    found: list[list[list[str]]] = [[]]
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def rows(page: Path, *heads: str) -> list[list[str]]:
    """Rows of all tables whose first cells are these, without head and rule."""
    return [row for table in tables(page) if table[0][: len(heads)] == list(heads) for row in table[2:]]


def shown(values: list[float]) -> str:
    """Mean and standard deviation over seeds, as tables write them; one seed alone has no deviation."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.3f}"


def test_every_row_of_the_benchmarks() -> None:
    measured = {
        (row["what"], row["baseline"]): row for of in read("benchmarks_cpu.json")["rows"].values() for row in of
    }
    quoted = rows(DOCS / "performance.md", "what", "ours", "baseline", "unit", "gain", "against")
    assert len(quoted) > 50
    for what, ours, theirs, unit, gain, against, *_ in quoted:
        row = measured[what, against]
        assert unit == row["unit"]
        for text, value in ((ours, row["ours"]), (theirs, row["theirs"]), (gain, row["gain"])):
            number = float(text.replace(",", ""))
            digits = len(re.sub(r"\D", "", text).lstrip("0"))
            assert number == pytest.approx(value, rel=0.51 * 10 ** (1 - digits) if digits < 4 else 5e-4), (what, text)


def test_speed_ups_of_the_readme() -> None:
    by = read("benchmarks_cpu.json")["rows"]
    kept = next(row["gain"] for row in by["allocator"] if row["baseline"] == "official step, given back")
    both = next(row["gain"] for row in by["step"] if row["what"] == "stage 2, k=3, batch 16, fp32")
    (said,) = (row[1] for row in rows(ROOT / "README.md", "question", "found") if row[0] == "How fast is training?")
    assert re.findall(r"([\d.]+) times", said) == [f"{kept:.2f}", f"{both:.2f}"]


def test_images_to_fidelity() -> None:
    digits, clip = read("samples_digits.json")["r2"], read("samples_clip.json")["r2"]
    by_recipe = {row[1]: row for row in rows(DOCS / "performance.md", "teacher", "recipe", "images", "R2", "seeds")}
    for recipe, arm, counts in (
        ("paper (stage 1, then 2)", "paper", ("7936", "16000", "32000")),
        ("tuned: the same with rate 3e-3, LayerScale 0.1", "tuned", ("7936", "16000", "32000")),
        ("fast, but random blocks", "random", ("6400",)),
        ("fast, but blocks from the middle layer", "middle", ("6400",)),
        ("fast, but batches of 64", "batch of 64", ("6400",)),
    ):
        quoted = next(row for row in rows(DOCS / "performance.md", "teacher", "recipe", "images") if row[1] == recipe)
        assert quoted[3] == " / ".join(shown(digits[arm][count]) for count in counts)
    fast = [row for row in rows(DOCS / "performance.md", "teacher", "recipe", "images") if row[1] == "`method=fast`"]
    assert fast[0][3] == " / ".join(shown(digits["fast"][count]) for count in ("1600", "3200", "6400"))
    assert fast[1][3] == " / ".join(shown(clip["fast"][count]) for count in ("640", "1280"))
    assert by_recipe["fast, but AdamW 1e-4"][3] == shown(clip["AdamW"]["1280"])


def test_curves_of_clip() -> None:
    study = read("clip.json")
    for name, kind, *cells in by_surrogate(RESULTS / "clip.md", "surrogate", "", "untrained blocks"):
        own = study["surrogates"][name.removeprefix("k=")]
        at = dict(own[f"r2_{kind}_by_step"])
        expected = [statistics.fmean(own["r2_untrained"][kind]), at[0], at[25], at[100], at[200]]
        assert cells == [f"{value:.2f}" if i == 0 else f"{value:.3f}" for i, value in enumerate(expected)]
    for name, *cells in rows(RESULTS / "clip.md", "surrogate", "untrained blocks", "after stage 1"):
        own = study["surrogates"][name.removeprefix("k=")]
        steps = ("untrained", "0", "25", "50", "100", "200")
        assert cells == [f"{100 * own['probe'][s]:.1f} ({100 * own['probe_share'][s]:.0f} %)" for s in steps]


def by_surrogate(page: Path, *heads: str) -> list[list[str]]:
    """Rows with the name of the surrogate in each: tables write it once."""
    name, found = "", []
    for row in rows(page, *heads):
        name = row[0] or name
        found.append([name, *row[1:]])
    return found


def test_floors_beside_fewer_images() -> None:
    scores: dict[str, list[list[str]]] = {}
    measure = ""
    for row in rows(DOCS / "measures.md", "measure", "tokens", "`mean`"):
        measure = row[0] or measure
        scores.setdefault(measure, []).append(row[2:])
    mean, layer_0, affine = (statistics.fmean(float(row[i]) for row in scores["`r2`"]) for i in range(3))
    row = rows(DOCS / "performance.md", "teacher", "`method=fast`", "tuned")[0]
    assert row[3:] == [f"{affine:.3f}", f"{mean:.3f}", f"{layer_0:.3f}"]


def test_rivals_beside_method_fast() -> None:
    digits = read("samples_digits.json")["r2"]
    row = rows(DOCS / "performance.md", "teacher", "`method=fast`", "tuned")[0]
    assert row[1] == f"{shown(digits['fast']['6400'])} after 6,400 images"
    assert row[2] == f"{shown(digits['tuned']['32000'])} after 32,000"


def test_the_surrogate_that_ships() -> None:
    about = (read_json(ASSETS / "digits_k2" / "model.json") or {})["about"]["metrics"]
    (said,) = (row[1] for row in rows(ROOT / "README.md", "question", "found") if row[0].startswith("Do two blocks"))
    fidelity = [about[f"val/r2_centered_{kind}"] for kind in ("cls", "registers", "patches")]
    floors = [
        r2 - about[f"val/above_floor_{kind}"]
        for r2, kind in zip(fidelity, ("cls", "registers", "patches"), strict=True)
    ]
    assert re.findall(r"\d\.\d\d", said) == [f"{value:.2f}" for value in (*fidelity, *floors)]
    assert re.findall(r"([\d.]+) %", said) == [f"{100 * about[f'val/{key}']:.1f}" for key in ("top1", "teacher_top1")]
