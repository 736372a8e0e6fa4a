"""The notebooks of the documentation run from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation lies in a checkout only")
def test_the_dynamics_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("Agg")
    notebook = json.loads((DOCS / "dynamics.ipynb").read_text())
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]  # figures belong into docs/figures
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    plt.close("all")
    printed = capsys.readouterr().out
    assert "13 layers of" in printed
    chance = float(printed.split("chance: ")[1].split()[0])
    assert 0.09 < chance < 0.2
    assert len(names["boundaries"]) == 2  # type: ignore[arg-type]
    right = names["found"]["final"].mean(0)  # type: ignore[index]
    assert right[-1] > 0.9
    assert right[0] < 0.3
    assert np.isfinite(names["paths"]).all()  # type: ignore[call-overload]
