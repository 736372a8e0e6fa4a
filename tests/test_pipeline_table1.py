"""The graphs of Table 1, its miniature, the ablation and k = 1..6, each on small models and small trees."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import raptor
from raptor.models.io import save
from raptor.models.pretrained import build_teacher
from raptor.models.surrogate import Surrogate
from raptor.partition.phases import Phase
from tests.trees import lay_out

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
SHORT = [*QUIET, "trainer.max_steps=2", "trainer.val_check_interval=2", "data.batch_size=4", "data.num_workers=0"]
SMALL = [  # DINOv2 in all but its width
    "teacher.pretrained=false",
    "+teacher.options.embed_dim=24",
    "+teacher.options.num_heads=2",
    "trainer=cpu",
]
WIDTH = 24
Call = Callable[..., None]


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    root = lay_out(tmp_path / "data")
    (root / "heads").mkdir()
    torch.manual_seed(0)
    for size in "sb":
        head = {"weight": torch.randn(2, 2 * WIDTH), "bias": torch.zeros(2)}
        torch.save(head, root / "heads" / f"dinov2_vit{size}14_reg4_linear_head.pth")
    return root


def results(runs: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/result.json")}


def at(size: str) -> list[str]:
    return [f"teacher.options.img_size={size}"]


def shrunk(protocol: str) -> list[str]:
    more = {
        "imagenet": at("28"),
        "ade20k": [*at("42"), "data.num_classes=4"],
        "nyuv2": [*at("[70,84]"), "data.size=[60,80]", "task.bins=8"],
    }
    return [f"protocol={protocol}", *more[protocol]]


@pytest.mark.slow
def test_table1_from_blocks_to_report(call: Call, tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs" / "table1"
    monkeypatch.setenv("RAPTOR_DATA", str(trees))
    torch.manual_seed(0)
    options = {"img_size": 28, "embed_dim": WIDTH, "num_heads": 2}
    save(build_teacher("vit_base_patch14_reg4_dinov2.lvd142m", options), tmp_path / "dinov2")
    fixed = [*SMALL, f"teacher.weights={tmp_path / 'dinov2'}"]
    pixels = ["content=pixels", "data=imagenet", "teacher=dinov2_vitb14_reg", "data.pixels=null", "data.num_workers=0"]
    small = [option for option in fixed if option != "trainer=cpu"]
    call("extract", *pixels, *small, *at("28"))
    call("phases", "experiment=table1/phases", *small, *at("28"), "images=8", "data.batch_size=4", "data.num_workers=0")
    for phase in ("0-7", "7-12"):
        job = ["experiment=table1/blocks", f"grid.phase={phase}", "grid.replicate=r0"]
        call("train", "-m", *job, *fixed, *SHORT, *at("28"))
    call(
        "train",
        "-m",
        "experiment=table1/surrogates",
        "grid.surrogate=k2",
        "grid.replicate=r0",
        *fixed,
        *SHORT,
        *at("28"),
    )
    together = ["experiment=table1/blocks_together", "grid.replicate=r0"]
    call("train", "-m", *together, *fixed, *SHORT, *at("28"))
    job = ["experiment=table1/surrogates", "grid.surrogate=k4", "grid.replicate=r0"]
    from_there = "task.blocks=${paths.runs}/table1/blocks-${grid.replicate}"
    call("train", "-m", *job, from_there, *fixed, *SHORT, *at("28"))
    for protocol in ("imagenet", "ade20k", "nyuv2"):
        job = ["experiment=table1/probes", "grid.backbone=vitb14,k2-r0", *shrunk(protocol)]
        call("train", "-m", *job, *fixed, *QUIET, "trainer.max_epochs=1", "data.batch_size=8", "data.num_workers=0")
    baseline = ["experiment=table1/baselines", *shrunk("imagenet"), "grid.backbone=vits14", "grid.repeat=s1"]
    call("train", "-m", *baseline, *fixed, *SHORT, "trainer.max_epochs=null")
    call("report", "experiment=table1")

    found = results(runs)
    assert {name for name in found if name.startswith("probe")} == {
        *(f"probe-{data}-{backbone}" for data in ("imagenet", "ade20k", "nyuv2") for backbone in ("vitb14", "k2-r0")),
        "probe-imagenet-vits14-s1",
    }
    assert [found[name]["seed"] for name in ("block-0-7-r0", "surrogate-k2-r0", "probe-ade20k-k2-r0")] == [
        100,
        1001,
        5002,
    ]
    surrogate = raptor.load(runs / "surrogate-k2-r0")
    assert isinstance(surrogate, Surrogate)
    assert surrogate.input_shape == (3, 28, 28)
    assert found["probe-ade20k-k2-r0"]["steps"] == 2  # 12 pictures in batches of 8, once
    cells = {(c["row"], c["column"]): c for c in json.loads((runs / "report" / "table.json").read_text())["cells"]}
    assert cells["k2", "nyuv2"]["n"] == 1
    assert cells["k2", "nyuv2"]["values"] == pytest.approx([found["probe-nyuv2-k2-r0"]["metrics"]["val/rmse"]])
    assert cells["k3", "imagenet"]["missing"] is True
    page = (runs / "report" / "report.html").read_text()
    assert "missing" in page
    assert "96.1" not in page


def test_the_ablation_from_blocks_to_classifier(
    call: Call, tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPTOR_DATA", str(trees))
    r0 = ["grid.replicate=r0", *SMALL, *QUIET, "data.pixels=null", "data.batch_size=4", "data.num_workers=0", *at("28")]
    short = ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    call("train", "-m", "experiment=ablation/blocks", "grid.row=forcing,cls_weight", *r0, *short)
    call("train", "-m", "experiment=ablation/assembled", "grid.row=forcing,cls_weight", *r0)
    call("train", "-m", "experiment=ablation/finetuned", "grid.row=cls_weight", *r0, *short)
    call("train", "-m", "experiment=ablation/classifier", *r0, "trainer.max_epochs=1")
    call("report", "experiment=ablation")
    runs = tmp_path / "runs" / "ablation"
    blocks, assembled = (raptor.load(runs / f"{name}-cls_weight-r0") for name in ("blocks", "assembled"))
    found = results(runs)
    assert found["assembled-cls_weight-r0"]["steps"] == 0
    for phase in (Phase(0, 7), Phase(7, 10), Phase(10, 12)):
        ours, theirs = (model.of(phase).state_dict() for model in (assembled.blocks, blocks))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert raptor.load(runs / "assembled-forcing-r0").blocks.config.depth_scaling is False
    assert found["finetuned-r0"]["weights_sha256"] != found["assembled-cls_weight-r0"]["weights_sha256"]
    table = (runs / "report" / "table.md").read_text()
    assert "+ fine-tuned classifier" in table
    assert table.count("missing") > 0


def test_one_to_six_blocks(call: Call, tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPTOR_DATA", str(trees))
    small = ["data.pixels=null", "data.batch_size=4", "data.num_workers=0", *at("28")]
    call("phases", "experiment=k1to6/phases", *[o for o in SMALL if o != "trainer=cpu"], *small, "images=8")
    short = [*SMALL, *QUIET, *small, "trainer.max_steps=2", "trainer.val_check_interval=2", "seed=0"]
    call("train", "-m", "experiment=k1to6/blocks", *short)
    call("train", "-m", "experiment=k1to6/surrogates", "surrogate.k=1,6", *short)
    call(
        "train",
        "-m",
        "experiment=k1to6/probes",
        "protocol=imagenet",
        "surrogate.k=1,6",
        *short,
        "trainer.max_epochs=null",
    )
    call("report", "experiment=k1to6")
    found = results(tmp_path / "runs" / "k1to6")
    assert found["surrogate-k6-r0"]["model"]["k"] == found["probe-imagenet-k6-r0"]["model"]["k"] == 6
    assert "Raptor k=6" in (tmp_path / "runs/k1to6/report/table.md").read_text()


def test_the_miniature_and_a_deleted_result(
    call: Call, tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAPTOR_MINIATURE", str(trees))
    runs = tmp_path / "runs" / "table1_mini"
    tiny = ["teacher.options.depth=4", "teacher.options.embed_dim=16", "teacher.linear_head=2"]
    call("extract", "experiment=table1_mini/pixels", *tiny)
    call("train", "experiment=table1_mini/teacher", *tiny, *SHORT)
    call("phases", "experiment=table1_mini/phases", *tiny, "images=8", "data.batch_size=4")
    call("train", "-m", "experiment=table1_mini/blocks", *tiny, *SHORT, "seed=0")
    call("train", "-m", "experiment=table1_mini/surrogates", *tiny, *SHORT, "surrogate.k=2", "seed=0")
    call("train", "-m", "experiment=table1_mini/rivals", *tiny, *SHORT, "surrogate=untied", "seed=0")
    for protocol, more in (("imagenet", []), ("ade20k", ["data.num_classes=4"]), ("nyuv2", [])):
        job = ["experiment=table1_mini/probes", f"protocol=mini_{protocol}", "grid.backbone=k2,untrained", "seed=0"]
        call("train", "-m", *job, *tiny, *more, *QUIET, "trainer.max_epochs=2")
    call("report", "experiment=table1_mini")
    out = runs / "report"
    for name in (
        "table.md",
        "table.tex",
        "table_document.tex",
        "table.csv",
        "table.json",
        "report.html",
        "surrogates.md",
    ):
        assert (out / name).is_file()
    assert {path.stem for path in (out / "figures").iterdir()} >= {"figure7", "r2_by_layer", "distance_phases"}
    probe = results(runs)["probe-imagenet-k2-r0"]
    assert {"val/top1", "val/knn_top1", "val/ridge_top1"} <= probe["metrics"].keys()
    assert probe["cached_features"] == ["val", "held_out", "train"]
    line = next(x for x in (out / "table.md").read_text().splitlines() if "k=2" in x)
    assert line.count("(1 of 2, 1 missing)") == 3
    shutil.rmtree(runs / "probe-ade20k-k2-r0")
    call("report", "experiment=table1_mini")
    line = next(x for x in (out / "table.md").read_text().splitlines() if "k=2" in x)
    assert line.count("(1 of 2, 1 missing)") == 2
    assert "missing" in line
