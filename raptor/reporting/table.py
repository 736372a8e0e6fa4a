"""A table in all its forms, each from the same DataFrame: Markdown, HTML, LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from raptor.reporting.prose import templates
from raptor.reporting.statistics import MeanCI
from raptor.utils.files import write_text

MISSING, NOTHING = "missing", "—"  # a number that should be there, and one that cannot be
PROSE = 40  # characters: longer cells are wrapped
FOLDED = 16  # rows: longer tables are shown on demand
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "—": "---"}
LATEX |= {character: "\\" + character for character in "%_&#${}"}


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Parameters
    ----------
    name
        Stem of its files.
    title
        Heading.
    frame
        Cells as they are shown: text, or numbers; None and NaN are shown as missing.
    caption
        What the numbers are.
    """

    name: str
    title: str
    frame: pd.DataFrame
    caption: str = ""

    def cells(self) -> list[list[str]]:
        """Return the text of all cells, the headings first."""
        rows = self.frame.itertuples(index=False, name=None)
        return [[str(name) for name in self.frame.columns], *([text(cell) for cell in row] for row in rows)]

    def to_markdown(self) -> str:
        """Return a pipe table; a ``|`` within a cell is escaped."""
        head, *body = ([_markdown(cell) for cell in row] for row in self.cells())
        frame = pd.DataFrame(body, columns=range(len(head)))
        return frame.to_markdown(index=False, headers=head, disable_numparse=True)

    def to_html(self) -> Markup:
        """Return a ``<table>``; everything within cells is escaped, long tables are folded."""
        head, *body = self.cells()
        prose = [any(len(row[i]) > PROSE for row in body) for i in range(len(head))]
        template = templates().get_template("table.html.j2")
        return Markup(template.render(head=head, body=body, prose=prose, folded=len(body) > FOLDED, missing=MISSING))

    def to_latex(self, left: int = 1) -> str:
        """Return a ``tabular`` with the rules of booktabs.

        Parameters
        ----------
        left
            Number of leading columns that are aligned to the left.
        """
        head, *body = ([latex(cell) for cell in row] for row in self.cells())
        columns = "l" * min(left, len(head)) + "r" * (len(head) - left)
        lines = [" & ".join(row) + r" \\" for row in body]
        inner = [r"\toprule", " & ".join(head) + r" \\", r"\midrule", *lines, r"\bottomrule"]
        return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inner, r"\end{tabular}", ""])

    def write_markdown(self, folder: Path) -> None:
        """Write ``name.md`` with the caption below the table."""
        write_text(folder / f"{self.name}.md", f"{self.to_markdown()}\n\n{self.caption}\n")


def text(cell: Any) -> str:
    """Return a cell as text, what is None or not a number as missing."""
    if cell is None or cell is pd.NA or (isinstance(cell, float) and cell != cell):
        return MISSING
    return str(cell)


def show_mean(mean: MeanCI, expected: int, digits: int = 1, scale: float = 1.0) -> str:
    """Return ``mean ± std`` over seeds, and how many of the expected seeds have no value.

    Parameters
    ----------
    mean
        Over the seeds that have a value.
    expected
        Seeds that should have one; 0 where no run measures this.
    digits
        Decimals.
    scale
        Factor to the unit shown.
    """
    if not mean.n:
        return MISSING if expected else NOTHING
    lacking = expected - mean.n
    return mean.show(digits, scale) + (f" ({mean.n} of {expected}, {lacking} {MISSING})" if lacking > 0 else "")


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def _markdown(cell: str) -> str:
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")
