"""Copy shipped files out of runs: the digits ViT and its surrogate, pictures and tables of README and docs.

Run it after ``make demo``, and after ``make mini`` where that has run: ``python scripts/make_assets.py [runs]``.
``python scripts/make_assets.py --surrogate [runs]`` replaces the surrogate alone, from runs of ``DISTIL`` and ``PROBE``
below on the teacher that ships.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from raptor.models.io import DESCRIPTION, WEIGHTS
from raptor.runs.release import release
from raptor.utils.files import ASSETS

PICTURES = ("accuracy_r2.png", "distance_phases.png", "r2_by_layer.png", "training.png")
DISTIL = "python -m raptor.train method=fast study=digits_k2 name=surrogate"
PROBE = (
    "python -m raptor.train task=linear_probe task.backbone=runs/digits_k2/surrogate study=digits_k2 name=probe "
    "'task.checks=[ridge,knn]' 'task.selection=[last]' trainer.max_steps=300"
)


def main() -> None:
    """Copy the files, or list what is missing."""
    folders = [argument for argument in sys.argv[1:] if argument != "--surrogate"]
    runs = Path(folders[0] if folders else "runs")
    if "--surrogate" in sys.argv:
        ship_surrogate(runs / "digits_k2")
        return
    demo, mini = runs / "demo", runs / "table1_mini" / "report"
    if not (demo / "report" / "report.html").is_file():
        sys.exit(f"error: runs={runs}: expected a folder with demo/report/report.html. Fix: run make demo first.")
    target = ASSETS / "digits_vit"
    target.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, DESCRIPTION):
        shutil.copyfile(demo / "teacher" / name, target / name)
    config = (demo / "teacher" / "config.yaml").read_text(encoding="utf-8")
    (target / "config.yaml").write_text(config.replace(f"runs: {runs}\n", "runs: runs\n"), encoding="utf-8")
    pictures = Path(__file__).parent.parent / "docs" / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        shutil.copyfile(demo / "report" / "figures" / name, pictures / name)
    docs = pictures.parent
    for name, file in (("demo", "table.md"), ("floors", "floors.md")):
        table = (demo / "report" / file).read_text(encoding="utf-8")
        put_table(docs / "results" / "demo.md", name, table.split("\n\n")[0])
    if (mini / "report.html").is_file():
        shutil.copyfile(mini / "figures" / "figure7.png", pictures / "table1_mini.png")
        tables = [(mini / name).read_text(encoding="utf-8").strip() for name in ("table.md", "surrogates.md")]
        put_table(docs / "results" / "table1_mini.md", "mini", "\n\n".join(tables))


def ship_surrogate(study: Path) -> None:
    """Put the surrogate of the digits ViT into the package, with a card and what its probe measured."""
    if missing := [name for name in ("surrogate", "probe") if not (study / name / "result.json").is_file()]:
        sys.exit(f"{study} has no finished {missing[0]}: run\n  {DISTIL}\n  {PROBE}")
    release(study / "surrogate", ASSETS / "digits_k2", [study / "probe"])


def put_table(page: Path, name: str, table: str) -> None:
    """Put a table between the marks of its name in a page."""
    marked = re.compile(rf"(<!-- {name} table.*? -->\n).*?(<!-- end of {name} table -->)", re.DOTALL)
    text = marked.sub(lambda marks: f"{marks[1]}{table}\n{marks[2]}", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
