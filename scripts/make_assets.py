"""Copy what ships with the repository out of the demo's runs: the digits ViT, the README's pictures and table.

Run it after ``make demo``: ``python scripts/make_assets.py [runs]``.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from raptor.files import ASSETS
from raptor.models.io import DESCRIPTION, WEIGHTS

PICTURES = ("accuracy_r2.png", "distance_phases.png", "r2_by_layer.png", "training.png")


def main() -> None:
    """Copy files, or say what is missing."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "runs") / "demo"
    if not (demo / "report" / "report.html").is_file():
        sys.exit(f"{demo} holds no report: run make demo first")
    target = ASSETS / "digits_vit"
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, DESCRIPTION, "config.yaml"):
        shutil.copyfile(demo / "teacher" / name, target / name)
    pictures = Path(__file__).parent.parent / "docs" / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        shutil.copyfile(demo / "report" / "figures" / name, pictures / name)
    table = (demo / "report" / "table.md").read_text().split("\n\n")[0]
    readme = pictures.parent.parent / "README.md"
    marked = re.compile(r"(<!-- demo table.*? -->\n).*?(<!-- end of demo table -->)", re.DOTALL)
    readme.write_text(marked.sub(lambda marks: f"{marks[1]}{table}\n{marks[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
