import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from raptor.errors import ConfigError
from raptor.phases import solve_all
from raptor.reporting.page import write_page, write_report
from raptor.reporting.style import new_figure
from raptor.reporting.table import rows
from raptor.runs.study import Study

VERSIONS = {"raptor": "0", "torch": "0"}


def put(root: Path, name: str, task: str, model: dict, metrics: dict, **more: object) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    result = {"name": name, "task": task, "seed": 0, "model": model, "metrics": metrics, "seconds": 1.0}
    history = {"train/loss": [[0, 1.0], [10, 0.5]], "train/0-3/loss": [[0, 1.0], [10, 0.5]], "val/loss": [[10, 0.7]]}
    result |= {"attempts": 1, "versions": VERSIONS, "history": history, **more}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "status.json").write_text(json.dumps({"state": "finished"}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study with known numbers: two seeds, k = 1 and 2, a teacher and an untrained control."""
    root = tmp_path / "study"
    put(root, "teacher", "classifier", {"kind": "teacher"}, {"val/top1": 0.98})
    put(root, "blocks", "distill", {"phases": [[0, 3]]}, {})
    for label, values in {
        "teacher": (0.99, 0.97),
        "untrained": (0.5, 0.6),
        "k=1": (0.9, 0.92),
        "k=2": (0.96, 0.98),
    }.items():
        for seed, value in enumerate(values):
            model = {"backbone": {"label": label}}
            put(root, f"probe-{label}-{seed}", "linear_probe", model, {"val/top1": value})
    for k in (1, 2):
        for seed in (0, 1):
            model = {
                "k": k,
                "boundaries": [1] * (k - 1),
                "solver": "exact",
                "block_parameters": 5 * k,
                "teacher_block_parameters": 30,
            }
            metrics = {
                "val/top1": 0.9 + k / 100 + seed / 1000,
                "val/r2_cls": 0.8 + k / 20,
                "val/r2_patches": 0.7 + seed / 10,
            }
            curves = {"r2": {"cls": [0.7, 0.8, 0.9], "patches": [0.6, 0.7, 0.8]}}
            put(root, f"surrogate-k{k}-{seed}", "finetune", model, metrics, layers={"0-3": curves})
    distance = np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0.0]])
    phases = solve_all(distance, [1, 2], "exact") | {"source": {"data": "digits", "images": 3}}
    put(root, "phases", "phases", {}, {}, phases=phases, distance=distance.tolist())
    return root


def test_rows_by_hand(root: Path) -> None:
    table = rows(Study(root)).set_index("backbone")
    assert table.index.tolist() == ["untrained", "k=1", "k=2", "teacher"]
    assert table.loc["k=2", "probe_mean"] == pytest.approx(0.97)
    assert table.loc["k=2", "probe_std"] == pytest.approx(np.std([0.96, 0.98], ddof=1))
    assert table.loc["k=1", "relative_mean"] == pytest.approx(0.91 / 0.98)
    assert table.loc["k=1", "r2_patches_mean"] == pytest.approx(0.75)
    assert table.loc["teacher", "head_mean"] == 0.98
    assert table.loc["k=2", "block_share"] == pytest.approx(1 / 3)
    assert table.loc["untrained", "head_n"] == 0


def test_report_writes_everything_and_the_page_stands_alone(root: Path, tmp_path: Path) -> None:
    markdown = write_report(Study(root), tmp_path / "out", "A study")
    out = tmp_path / "out"
    assert "97.0 ± 1.4" in markdown
    assert "registers" not in markdown  # nothing measured, no empty column
    figures = {path.name for path in (out / "figures").iterdir()}
    for stem in ("accuracy_r2", "distance_phases", "r2_by_layer", "training"):
        assert {f"{stem}.png", f"{stem}.pdf"} <= figures
        assert (out / "figures" / f"{stem}.png").stat().st_size > 5000
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert 'src="http' not in page
    assert "97.0 ± 1.4" in page
    assert pd.read_csv(out / "table.csv")["probe_n"].tolist() == [2, 2, 2, 2]
    assert len(pd.read_csv(out / "runs.csv")) == 15


def test_unfinished_runs_are_left_out_and_named(root: Path, tmp_path: Path) -> None:
    (root / "probe-k=2-1" / "status.json").write_text('{"state": "failed"}')
    study = Study(root)
    assert study.unfinished == {"probe-k=2-1": "failed"}
    write_report(study, tmp_path / "out", "A study")
    assert "probe-k=2-1 (failed)" in (tmp_path / "out" / "report.html").read_text()
    assert rows(study).set_index("backbone").loc["k=2", "probe_n"] == 1


def test_missing_runs_leave_dashes_not_numbers(root: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (root / f"probe-k=1-{seed}" / "status.json").unlink()
    markdown = write_report(Study(root), tmp_path / "out", "A study")
    (line,) = (line for line in markdown.splitlines() if "k=1" in line)
    assert "—" in line


def test_an_empty_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished run"):
        Study(tmp_path / "nothing")


def test_long_tables_are_folded_prose_is_wrapped_and_files_carry_their_caption(tmp_path: Path) -> None:
    figure, axes = new_figure(3.0, 2.0)
    axes[0].plot([0, 1])
    long = "\n".join(["| a | b |", "|---|---|", *[f"| {i} | x |" for i in range(17)]])
    prose = "| a | b |\n|---|---|\n| 1 | what one number is, in a whole sentence |"
    tables = [("Long", long, ""), ("Prose", prose, "")]
    write_page(tmp_path, "Title", "about", tables, [("line", "A line", "What the line is. " * 9, figure)], VERSIONS)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<details><summary>17 rows</summary>") == page.count("</details>") == 1
    assert page.count('<td class="prose">') == 1
    assert page.count("What the line is.") == 9  # as text below the picture, not in it too
    (shown,) = re.findall(r"data:image/png;base64,([^\"]+)", page)
    height, width = imread(io.BytesIO(base64.b64decode(shown))).shape[:2]
    in_file = imread(tmp_path / "figures" / "line.png").shape[:2]
    assert in_file[0] > height + 20
    assert abs(in_file[1] - width) <= 10
