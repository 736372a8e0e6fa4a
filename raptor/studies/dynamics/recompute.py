"""Write the verdicts into the page of results, from the JSON files beside it.

``python -m raptor.studies.dynamics.recompute docs/results``. The page holds ``<!-- verdicts -->`` and ``<!-- end -->``;
what stands between them is replaced by the table. With ``--check`` nothing is written, and the exit code says whether
anything would change.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raptor.reporting.recompute import fill_page

PAGE = "dynamics.md"
NETWORKS = {  # columns: file and heading
    "dynamics_digits.json": "digits",
    "dynamics_fashion.json": "Fashion-MNIST",
    "dynamics_clip.json": "CLIP, 224 pixels",
    "dynamics_clip_64.json": "CLIP, 64 pixels",
}
BLOCK = re.compile(r"(<!-- verdicts -->\n).*?(<!-- end -->)", re.DOTALL)
UNTRAINED = "untrained"


def cell(row: Mapping[str, Any]) -> str:
    """Write a verdict with the statistic of each network; that of the untrained one stands in brackets."""
    values = {
        name: f"{value['mean']:.{row['digits']}f} ± {value['ci95']:.{row['digits']}f}"
        for name, value in row["values"].items()
    }
    trained = ", ".join(text for name, text in values.items() if name != UNTRAINED)
    return f"**{row['verdict']}**: {trained} ({values.get(UNTRAINED, '—')})"


def verdicts_table(folder: Path) -> str:
    """Tabulate the verdicts of all files as Markdown, a row for each finding and token type."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for file, heading in NETWORKS.items():
        result = json.loads((folder / file).read_text(encoding="utf-8"))
        for row in result["findings"]:
            about = f"{row['finding']}: {row['statistic']}"
            found.setdefault((about, row["tokens"]), {})[heading] = cell(row)
    lines = [["finding: statistic", "tokens", *NETWORKS.values()], ["---"] * (2 + len(NETWORKS))]
    lines += [[*first, *(cells.get(heading, "—") for heading in NETWORKS.values())] for first, cells in found.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(folder: Path, text: str) -> str:
    """Replace the marked block of a page by the table."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{verdicts_table(folder)}\n\n{match[2]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill in the page of a folder, or check it; see :func:`raptor.reporting.recompute.fill_page`."""
    return fill_page(PAGE, fill, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
