"""docs/ARCHITECTURE.md shows the rooms as they are: its tree, its picture, its links and the paths that it walks."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
IGNORED = {"__pycache__", "runs", "data", "stores", "build", "dist", "wandb", "site"}  # at the root, made by use


def tree() -> Iterator[Path]:
    """Files and folders that the tree names."""
    text = PAGE[PAGE.index("<!-- tree") : PAGE.index("<!-- end of tree")]
    above: dict[int, Path] = {-2: Path()}
    for line in text.splitlines()[2:-1]:
        indent = len(line) - len(line.lstrip())
        for name in line.strip().split("  ")[0].split():
            path = above[indent - 2] / name
            yield path
            if name.endswith("/"):
                above[indent] = path


def folders(root: Path) -> set[Path]:
    """Folders below ``root`` that hold something of the project, hidden ones left out."""
    found = (path for path in root.iterdir() if path.is_dir() and path.name not in IGNORED)
    return {path.relative_to(ROOT) for path in found if not path.name.startswith(".") and any(path.iterdir())}


def test_everything_in_the_tree_exists() -> None:
    named = list(tree())
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_folder_is_in_the_tree() -> None:
    packages = {path.parent.relative_to(ROOT) for path in (ROOT / "raptor").rglob("__init__.py")}
    wanted = packages | folders(ROOT / "raptor") | folders(ROOT / "configs")
    wanted |= {path for path in folders(ROOT) if path.name != "raptor_vit.egg-info"}
    assert wanted - set(tree()) == set()


def test_every_command_is_in_the_tree() -> None:
    commands = {path.relative_to(ROOT) for path in (ROOT / "raptor").glob("*.py")} - {Path("raptor/__init__.py")}
    assert commands - set(tree()) == set()


def test_the_picture_shows_the_layers_that_import_linter_enforces() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = [set(re.split(r" [:|] ", row)) for row in layers]
    rank = {room: i for i, row in enumerate(rows) for room in row} | {"commands": 0}
    picture = PAGE[PAGE.index("```mermaid") : PAGE.index("```", PAGE.index("```mermaid") + 3)]
    rooms = set(re.findall(r"^  (\w+)\[", picture, re.MULTILINE))
    assert rooms == {"commands"} | set.union(*rows[1:-1])
    assert rows[-1] == {"errors", "version"}  # which everything may import: not drawn
    drawn = set()
    for line in picture.splitlines():
        steps = [set(re.findall(r"\w+", part)) for part in line.split("-->")]
        for above, below in pairwise(steps):
            assert {rank[room] for room in below} == {rank[room] + 1 for room in above}
            drawn |= {(upper, lower) for upper in above for lower in below}
    wanted = {(upper, lower) for upper in rooms for lower in rooms if rank[lower] == rank[upper] + 1}
    assert drawn == wanted


def test_few_files_lie_between_the_command_and_the_first_loss() -> None:
    path = PAGE[PAGE.index("1. **Compose.**") : PAGE.index("7. **Evaluate.**")]
    files = set(re.findall(r"\]\(\.\./(raptor/[^)]+\.py)\)", path))
    assert {"raptor/train.py", "raptor/tasks/distillation/losses.py"} <= files
    assert len(files) <= 20


@pytest.mark.parametrize("name", sorted({p for p in re.findall(r"\]\(([^)]+)\)", PAGE) if ":" not in p}))
def test_links_lead_somewhere(name: str) -> None:
    assert (ROOT / "docs" / name).resolve().exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("raptor.tasks.distillation.fidelity", "Fidelity.update"),
        ("raptor.tasks.distillation.fidelity", "Fidelity.compute"),
        ("raptor.models.surrogate", "PhaseBlock.steps"),
        ("raptor.models.block", "DepthScale"),
        ("raptor.launching.job", "checkpoint"),
        ("raptor.utils.signals", "stop"),
        ("raptor.train", "TrainOptions"),
        ("raptor.tasks.context", "Context"),
        ("raptor.data.module", "ImageData"),
        ("raptor.tasks.distillation.losses", "TokenLoss"),
        ("raptor.tasks.probes.base", "Probe"),
        ("raptor.models.block", "BlockConfig"),
    ],
)
def test_the_names_that_the_page_leads_to_are_there(module: str, name: str) -> None:
    assert f"`{name.split('.')[-1]}" in PAGE or f"`{name}" in PAGE
    found = importlib.import_module(module)
    if name == "checkpoint":  # a method of the job, whatever the job is called
        assert any(hasattr(value, name) for value in vars(found).values() if isinstance(value, type))
        return
    for part in name.split("."):
        found = getattr(found, part)
