"""A table of backbones against data sets, by hand; missing cells; every form of it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from raptor.errors import ConfigError
from raptor.reporting.crosstable import CrossTable
from raptor.reporting.options import TableOptions
from raptor.reporting.study import write_report
from raptor.runs.study import Study
from raptor.utils.options import parse
from tests.reporting.runs import put

NODE: dict[str, Any] = {
    "title": "T",
    "runs": "probe-{column}-{row}",
    "reference": "base",
    "source": "a paper",
    "columns": {
        "pets": {"title": "pets top-1 (%)", "metric": "val/top1", "scale": 100},
        "rooms": {"title": "rooms RMSE (m)", "metric": "val/rmse", "digits": 3, "higher_is_better": False},
    },
    "rows": {
        "k2": {"title": "Raptor k=2", "runs": "k2-r*", "seeds": 3, "published": {"pets": [81.0, 0.2], "rooms": [0.6]}},
        "base": {"title": "ViT_B", "runs": "base*", "seeds": 1, "line": True},
    },
}


def table(node: dict[str, Any]) -> TableOptions:
    return parse(TableOptions, node, "table")


def probe(root: Path, name: str, metric: str, official: float, held_out: float, **options: object) -> None:
    selection: dict[str, Any] = {
        rule: [{"seed": 0, "metrics": {metric: value}}]
        for rule, value in (("official", official), ("held_out", held_out))
    }
    selection |= {
        "shown": "official",
        "score": metric,
        "rules": {"official": "best on validation", "held_out": "tenth"},
    }
    seed = int(name[-1]) if name[-1].isdigit() else 0
    model, metrics = {"backbone": {"label": "x"}}, {metric: official}
    named = {f"task.{key}": value for key, value in options.items()}
    put(root, name, "linear_probe", model, metrics, seed, named, selection=selection)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    for i, value in enumerate((0.80, 0.82, 0.84)):
        probe(root, f"probe-pets-k2-r{i}", "val/top1", value, value - 0.1)
    probe(root, "probe-rooms-k2-r1", "val/rmse", 0.66, 0.7)
    probe(root, "probe-pets-base", "val/top1", 0.9, 0.8)
    probe(root, "probe-pets-k20-r0", "val/top1", 0.0, 0.0)  # of another row
    return root


def test_cells_by_hand(root: Path) -> None:
    cells = CrossTable(Study(root), table(NODE)).cells.set_index(["row", "column"])
    k2 = cells.loc["k2", "pets"]
    assert (k2["n"], k2["expected"]) == (3, 3)
    assert k2["mean"] == pytest.approx(82)
    assert k2["std"] == pytest.approx(2)
    assert k2["ci95"] == pytest.approx(4.302653 * 2 / math.sqrt(3))  # Student's t for 2 degrees of freedom
    assert k2["share"] == pytest.approx(82 / 90)
    assert k2["difference"] == pytest.approx(1.0)
    assert cells.loc["k2", "rooms"]["difference"] == pytest.approx(0.06)
    assert cells.loc["base", "rooms"]["n"] == 0
    assert math.isnan(cells.loc["base", "rooms"]["mean"])


def test_a_reference_that_scores_nothing_has_no_shares(root: Path) -> None:
    shutil.rmtree(root / "probe-pets-base")
    probe(root, "probe-pets-base", "val/top1", 0.0, 0.0)
    k2 = CrossTable(Study(root), table(NODE)).cells.set_index(["row", "column"]).loc["k2", "pets"]
    assert k2["mean"] == pytest.approx(82)
    assert math.isnan(k2["share"])


def test_repeats_of_a_seed_count_once_and_other_experiments_are_not_averaged(root: Path) -> None:
    probe(root, "probe-pets-k2-r2-again-2", "val/top1", 0.86, 0.1)
    cross = CrossTable(Study(root), table(NODE))
    assert cross.values("k2", "pets") == pytest.approx([80, 82, 85])
    assert "2 repeats of seed 2" in str(cross.long().to_dict())
    probe(root, "probe-pets-k2-r3", "val/top1", 0.1, 0.1, lr=0.5)
    mixed = CrossTable(Study(root), table(NODE))
    assert mixed.wide().set_index("backbone").loc["Raptor k=2", "pets top-1 (%)"] == "mixed: 2 configurations"
    assert mixed.cells.set_index(["row", "column"]).loc[("k2", "pets"), "n"] == 0


def test_the_other_selection(root: Path) -> None:
    other = CrossTable(Study(root), table({**NODE, "selection": "held_out"}))
    assert other.values("k2", "pets") == pytest.approx([70, 72, 74])
    assert "selection held_out: tenth." in other.caption  # in the words of result.json


def test_results_without_the_words_of_a_rule_show_its_name(root: Path) -> None:
    for path in root.glob("*/result.json"):
        result = json.loads(path.read_text())
        del result["selection"]["rules"]
        path.write_text(json.dumps(result))
    assert "selection official." in CrossTable(Study(root), table(NODE)).caption


def test_surrogates_that_are_rows_themselves_are_not_thrown_together(tmp_path: Path) -> None:
    model = {"k": 3, "boundaries": [7, 10]}
    for name, value in (("assembled", 0.1), ("finetuned", 0.9)):
        metrics = {"val/top1": value, "val/r2_cls": value}
        put(tmp_path / "s", f"{name}-r0", "finetune", model, metrics, options={"task.stage": name}, layers={})
    rows = {name: {"title": f"{name} & 50 %", "runs": f"{name}-*", "seeds": 1} for name in ("assembled", "finetuned")}
    node = {"runs": "{row}", "rows": rows, "columns": {"pets": NODE["columns"]["pets"]}, "source": "Smith & Jones #3^2"}
    cross = CrossTable(Study(tmp_path / "s"), table(node))
    markdown = write_report(Study(tmp_path / "s"), tmp_path / "out", "T", cross)
    assert "50.0" not in markdown
    assert not (tmp_path / "out" / "surrogates.md").exists()
    assert "nothing selected" in cross.caption
    assert "Probes on frozen backbones" not in cross.caption
    if shutil.which("pdflatex"):
        compile_latex(tmp_path / "out")


def compile_latex(folder: Path) -> None:
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table_document.tex"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:]


def test_every_form_marks_what_is_missing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    markdown = write_report(Study(root), out, "T", CrossTable(Study(root), table(NODE)))
    wide = {line.split("|")[1].strip(): line for line in markdown.split("\n\n")[0].splitlines()[2:]}
    assert "82.0 ± 2.0" in wide["Raptor k=2"]
    assert "0.660 (1 of 3, 2 missing)" in wide["Raptor k=2"]
    assert "missing" in wide["ViT_B"]
    assert "81.0 ± 0.2" in markdown
    assert "+1.0" in markdown
    page = (out / "report.html").read_text()
    assert 'class="missing">missing<' in page
    assert "Published figures: a paper" in page
    cells = {(c["row"], c["column"]): c for c in json.loads((out / "table.json").read_text())["cells"]}
    assert cells["base", "rooms"]["missing"] is True
    assert cells["base", "rooms"]["mean"] is None
    assert cells["k2", "pets"]["values"] == pytest.approx([80, 82, 84])
    assert len(pd.read_csv(out / "table.csv")) == 4
    latex = (out / "table.tex").read_text()
    assert r"82.0 $\pm$ 2.0" in latex
    assert r"ViT\_B" in latex
    details = (out / "table_details.tex").read_text()
    assert "+1.0" in details
    assert "--- " in details
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    for kind in ("png", "pdf"):
        assert (out / "figures" / f"figure7.{kind}").stat().st_size > 5000


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_the_latex_compiles(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report(Study(root), out, "T", CrossTable(Study(root), table(NODE)))
    compile_latex(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": "heldout"}, r"table\.selection=heldout: expected one of official, held_out\. Fix: "),
        (
            {"selection": "last"},
            r"table\.selection=last: expected one of official, held_out",
        ),  # no run was selected by it
        ({"reference": "k9"}, r"table\.reference=k9: expected a row of the table: k2, base"),
        (
            {"rows": {"k2": {"titel": "x"}}},
            r"table\.rows\.k2\.titel=x: expected a key that exists\. Fix: write table\.rows\.k2\.title",
        ),
        (
            {"columns": {"pets": {"metrics": "x"}}},
            r"table\.columns\.pets\.metrics=x: expected a key that exists\. Fix: write table\.columns\.pets\.metric",
        ),
    ],
)
def test_mistyped_tables(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossTable(Study(root), table({**NODE, **changes}))
