"""One table in three forms, whatever stands in its cells."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from raptor.reporting.prose import caption
from raptor.reporting.statistics import MeanCI
from raptor.reporting.table import Table, show_mean

NASTY = ["a|b", "<script>x</script>", "100 % & more_of_it #1 ~^\\ {x} $y$", "two\nlines", r"ends with \|"]
FRAME = pd.DataFrame({"name|s": NASTY, "n": [1, 2, None, 4.5, float("nan")], "text": ["±", "—", None, "", "x"]})


class Cells(HTMLParser):
    """Rows of cells of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_html_has_the_cells_of_the_frame() -> None:
    html = Table("t", "T", FRAME).to_html()
    read = Cells(html).rows
    assert read[0] == ["name|s", "n", "text"]
    assert [row[0] for row in read[1:]] == NASTY
    assert [row[1] for row in read[1:]] == ["1.0", "2.0", "missing", "4.5", "missing"]
    assert [row[2] for row in read[1:]] == ["±", "—", "missing", "", "x"]
    assert "<script>" not in html
    assert html.count('class="missing"') == 3


def test_markdown_has_as_many_columns_in_every_line() -> None:
    lines = Table("t", "T", FRAME).to_markdown().splitlines()
    assert len(lines) == 2 + len(FRAME)
    unescaped = [line.replace("\\\\", "").replace("\\|", "") for line in lines]
    assert {line.count("|") for line in unescaped} == {4}
    assert r"a\|b" in lines[2]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_latex_compiles(tmp_path: Path) -> None:
    body = Table("t", "T", FRAME).to_latex()
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:]


def test_latex_escapes_what_has_a_meaning_there() -> None:
    latex = Table("t", "T", FRAME).to_latex()
    assert r"100 \% \& more\_of\_it \#1 \textasciitilde{}\textasciicircum{}\textbackslash{} \{x\} \$y\$" in latex
    assert r"$\pm$" in latex
    assert all(line.count(" & ") == 2 for line in latex.splitlines() if line.endswith(r"\\"))


def test_a_table_without_rows() -> None:
    empty = Table("t", "T", pd.DataFrame(columns=["a", "b"]))
    assert empty.to_markdown().splitlines()[0].count("|") == 3
    assert Cells(empty.to_html()).rows == [["a", "b"]]


def test_how_a_mean_is_shown() -> None:
    assert show_mean(MeanCI.of([]), 0) == "—"
    assert show_mean(MeanCI.of([]), 2) == "missing"
    assert show_mean(MeanCI.of([0.5]), 1, scale=100) == "50.0"
    assert show_mean(MeanCI.of([0.5, 0.7]), 3, digits=2) == "0.60 ± 0.14 (2 of 3, 1 missing)"


def test_a_caption_names_what_it_lacks() -> None:
    with pytest.raises(TypeError, match="takes no keyword argument"):
        caption("runs", source="x")
    assert caption("overview", rules=["last: x", "y"]).count("last: x; y") == 1
