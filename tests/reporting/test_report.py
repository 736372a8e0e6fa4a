import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from raptor.errors import ConfigError
from raptor.partition.quality import solve_all
from raptor.reporting.figures import draw_seeds
from raptor.reporting.overview import rows
from raptor.reporting.page import write_page
from raptor.reporting.study import write_report
from raptor.reporting.style import fold_apart, new_figure
from raptor.reporting.table import Table
from raptor.runs.study import Study
from tests.reporting.runs import VERSIONS, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study with known numbers: two seeds, k = 1 and 2, a teacher and an untrained control."""
    root = tmp_path / "runs" / "study"
    put(root, "teacher", "classifier", {"kind": "teacher"}, {"val/top1": 0.98})
    put(root, "blocks", "distill", {"phases": [[0, 3]]}, {})
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
            options = {"surrogate.k": k}
            put(root, f"surrogate-k{k}-{seed}", "finetune", model, metrics, seed, options, layers={"0-3": curves})
    for label, values in {
        "teacher": (0.99, 0.97),
        "untrained": (0.5, 0.6),
        "k=1": (0.9, 0.92),
        "k=2": (0.96, 0.98),
    }.items():
        for seed, value in enumerate(values):
            size = label.removeprefix("k=")
            backbone = {"task.backbone": f"{root}/surrogate-k{size}-{seed}"} if size != label else {}
            weights = {"teacher.weights": f"{root}/teacher" if label == "teacher" else None}
            model = {"backbone": {"label": label}}
            metrics = {"val/top1": value}
            put(root, f"probe-{label}-{seed}", "linear_probe", model, metrics, seed, backbone | weights)
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
    assert table["notes"].tolist() == [""] * 4


def test_report_writes_everything_and_the_page_stands_alone(root: Path, tmp_path: Path) -> None:
    markdown = write_report(Study(root), tmp_path / "out", "A study")
    out = tmp_path / "out"
    assert "97.0 ± 1.4" in markdown
    assert "registers" not in markdown  # nothing measured, no empty column
    figures = {path.name for path in (out / "figures").iterdir()}
    for stem in ("accuracy_r2", "distance_phases", "r2_by_layer", "training"):
        assert {f"{stem}.png", f"{stem}.pdf"} <= figures
        assert (out / "figures" / f"{stem}.png").stat().st_size > 5000
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert 'src="http' not in page
    assert "97.0 ± 1.4" in page
    assert pd.read_csv(out / "table.csv")["probe_n"].tolist() == [2, 2, 2, 2]
    assert len(pd.read_csv(out / "runs.csv")) == 15


def test_a_failed_run_is_named_and_missing_in_its_row(root: Path, tmp_path: Path) -> None:
    (root / "probe-k=2-1" / "status.json").write_text('{"state": "failed", "error": "ValueError: <b> no"}')
    study = Study(root)
    assert study.unfinished == {"probe-k=2-1": "failed"}
    markdown = write_report(study, tmp_path / "out", "A study")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "probe-k=2-1 (failed)" in page
    assert "ValueError: &lt;b&gt; no" in page
    row = rows(study).set_index("backbone").loc["k=2"]
    assert (row["probe_n"], row["probe_expected"], row["notes"]) == (1, 2, "probe: 1 failed")
    (line,) = (line for line in markdown.splitlines() if line.startswith("| k=2"))
    assert "96.0 (1 of 2, 1 missing)" in line


def test_what_nobody_measured_is_a_dash(root: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        (root / f"probe-k=1-{seed}" / "status.json").unlink()
    markdown = write_report(Study(root), tmp_path / "out", "A study")
    (line,) = (line for line in markdown.splitlines() if line.startswith("| k=1"))
    assert "—" in line


def test_an_empty_study_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study=nothing: expected a study with a finished run.* has no run. Fix: "):
        Study(tmp_path / "nothing")


def test_long_tables_are_folded_prose_is_wrapped_and_files_carry_their_caption(tmp_path: Path) -> None:
    figure, axes = new_figure(3.0, 2.0)
    axes[0].plot([0, 1])
    long = pd.DataFrame({"a": range(17), "b": "x"})
    prose = pd.DataFrame({"a": [1], "b": ["what one number is, told in one whole sentence"]})
    tables = [Table("long", "Long", long), Table("prose", "Prose", prose)]
    write_page(tmp_path, "Title", "about", tables, [("line", "A line", "What the line is. " * 9, figure)], VERSIONS)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<details><summary>17 rows</summary>") == page.count("</details>") == 1
    assert page.count('<td class="prose">') == 1
    assert page.count("What the line is.") == 9  # as text below the picture, not in it too
    (shown,) = re.findall(r"data:image/png;base64,([^\"]+)", page)
    height, width = imread(io.BytesIO(base64.b64decode(shown))).shape[:2]
    in_file = imread(tmp_path / "figures" / "line.png").shape[:2]
    assert in_file[0] > height + 20
    assert abs(in_file[1] - width) <= 10


def test_a_mean_curve_has_the_steps_that_all_runs_have() -> None:
    """Runs of one group may have logged at other steps, which changes nothing that they compute."""
    figure, (ax,) = new_figure(2.0, 2.0)
    every, second = (np.stack([steps, 10.0 * steps], axis=1) for steps in (np.arange(1.0, 7), np.arange(2.0, 9, 2)))
    draw_seeds(ax, [every, np.add(second, [0.0, 2.0])], {"color": "black"}, "mean")
    mean = ax.lines[-1]
    assert list(mean.get_xdata()) == [2.0, 4.0, 6.0]
    assert list(mean.get_ydata()) == [21.0, 41.0, 61.0]
    draw_seeds(ax, [every[:1], second[:1]], {"color": "black"}, "nothing in common")
    assert [line.get_label() for line in ax.lines].count("nothing in common") == 0
    assert figure.axes == [ax]


def test_labels_of_figures_tell_apart_what_ends_otherwise() -> None:
    long = [f"k=2, {'the same words again and again, ' * 4}value {i}" for i in range(3)]
    folded = fold_apart(long)
    assert len(set(folded)) == 3
    assert fold_apart(["k=2", "k=3"]) == ["k=2", "k=3"]
