"""The notebooks of the documentation run from top to bottom, and print what they were kept with."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"

pytestmark = [
    pytest.mark.docs,
    pytest.mark.skipif(not TUTORIALS.is_dir(), reason="the documentation lies in a checkout only"),
]


def code_cells(name: str) -> list[dict[str, Any]]:
    notebook = json.loads((TUTORIALS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kept(cell: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def run(name: str) -> tuple[dict[str, Any], list[str]]:
    """Run the cells in one namespace; what each printed stands beside it."""
    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    printed = []
    for cell in code_cells(name):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        printed.append(said.getvalue())
    plt.close("all")
    return names, printed


@pytest.mark.parametrize("name", sorted(path.stem for path in TUTORIALS.glob("*.ipynb")))
def test_outputs_are_kept(name: str) -> None:
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    drawn = sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    assert drawn == sum("plt.figure" in (code := "".join(cell["source"])) or "plt.subplots" in code for cell in cells)


def test_block_recurrence() -> None:
    names, printed = run("block_recurrence")
    assert printed[:-1] == [kept(cell) for cell in code_cells("block_recurrence")][:-1]
    top1 = {name: values[-1] for name, values in names["early"].items()}
    assert min(top1.values()) > 0.97
    assert names["boundaries"] == [5]


def test_dynamics() -> None:
    names, printed = run("dynamics")
    text = "".join(printed)
    assert "13 layers of" in text
    chance = float(text.split("chance: ")[1].split()[0])
    assert 0.09 < chance < 0.2
    assert len(names["boundaries"]) == 2
    right = names["found"]["final"].mean(0)
    assert right[-1] > 0.9
    assert right[0] < 0.3
    assert np.isfinite(names["paths"]).all()


@pytest.mark.long
def test_your_own_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of its commands: the workers of pytest-xdist share the cores
    names, _ = run("your_own_vit")
    about = names["about"]
    assert about["val/teacher_top1"] > 0.7
    assert min(about["val/above_floor_cls"], about["val/above_floor_patches"]) > 0
