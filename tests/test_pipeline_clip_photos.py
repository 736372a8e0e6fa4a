"""The existence proof in miniature: a ViT with random weights on generated pictures, from phases to page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raptor.cli import sweeps

CLASSES = ("n01443537", "n01629819", "n01641577")
SIZES = {"img_size": 16, "num_classes": 10, "+patch_size": 8, "+embed_dim": 16, "+depth": 4, "+num_heads": 2}
TEACHER = [
    *(f"{key[: -len(name)]}teacher.options.{name}={n}" for key, n in SIZES.items() for name in [key.lstrip("+")]),
    *("teacher.pretrained=false", "data.num_workers=0", "data.eval_batch_size=6"),
]
QUIET = ["trainer=cpu", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve training and four validation pictures of each of three classes, in Tiny-ImageNet's layout."""
    root, rng, rows = tmp_path / "data" / "tiny-imagenet-200", np.random.default_rng(0), []
    (root / "val" / "images").mkdir(parents=True)
    for label, wnid in enumerate(CLASSES):
        (root / "train" / wnid / "images").mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 128, (16, 16, 3))
            pixels[..., label] += 127
            name = f"train/{wnid}/images/{wnid}_{i}.JPEG" if i < 12 else f"val/images/val_{label}_{i}.JPEG"
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            if i >= 12:
                rows.append(f"val_{label}_{i}.JPEG\t{wnid}\t0\t0\t1\t1\n")
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in CLASSES))
    (root / "words.txt").write_text("".join(f"{wnid}\tthing\n" for wnid in CLASSES))
    return root


def run(call: Callable[..., None], *, interrupted: bool) -> None:
    """Run all stages and the report; with an interruption in the training of the surrogate."""
    train = [*TEACHER, *QUIET, "trainer.max_steps=4", "recipe.batch_size=4", "trainer.limit_val_batches=2"]
    train += ["trainer.val_check_interval=2", "callbacks.snapshots.steps=[2]", "surrogate.init_images=8"]
    train += ["task.floor_images=12", "recipe.checkpoint_every=1"]
    read = [*TEACHER, *QUIET, "task.images=30", "task.neighbours=3", "trainer.limit_val_batches=2"]
    call("phases", "experiment=clip_photos/phases", *TEACHER, "k=[2]", "images=12", "draws=0", "resamples=0")
    call("train", "-m", "experiment=clip_photos/references", *read)
    if interrupted:
        with pytest.raises(SystemExit, match="it continues"):
            call("train", "experiment=clip_photos/surrogates", *train, "trainer.max_time=00:00:00:00")
    call("train", "experiment=clip_photos/surrogates", *train)
    call("train", "experiment=clip_photos/readouts", *read)
    call("train", "experiment=clip_photos/curve", *read, "grid.step=2")
    call("report", "experiment=clip_photos")


@pytest.mark.slow
def test_the_study_and_a_killed_one_end_in_the_same_table(
    call: Callable[..., None], tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for name in ("whole", "killed"):
        monkeypatch.setenv("RAPTOR_RUNS", str(tmp_path / name))
        run(call, interrupted=name == "killed")
        report = tmp_path / name / "clip_photos" / "report"
        found[name] = json.loads((report / "numbers.json").read_text())
        for model in found[name]["models"].values():
            del model["seconds"]
            # Lightning numbers a validation after a time limit one step later
            model["history"] = {kind: [value for _, value in points] for kind, points in model["history"].items()}
        assert {p.stem for p in (report / "figures").glob("*.png")} == {
            *("accuracy_by_layer", "fidelity_by_layer", "over_images", "colour_maps")
        }
    assert found["killed"] == found["whole"]
    numbers = found["whole"]
    assert set(numbers["readouts"]) == {
        *("readout-teacher", "readout-untrained", "readout-k2-seed0", "readout-k2-seed0-step2")
    }
    model = numbers["models"]["surrogate-k2-seed0"]
    assert (model["images"], len(model["boundaries"]), len(model["layers"]["eps"]["cls"])) == (16, 1, 4)
    assert set(model["floors"]) == {"mean", "layer_0", "phase_start", "affine"}
    surrogate = numbers["readouts"]["readout-k2-seed0"]
    assert len(surrogate["accuracy"]["ridge"]) == 5
    assert np.array(surrogate["maps"]["backbone"]).shape == (5, 2, 4, 3)
    assert surrogate["blocks"] == pytest.approx(0.5, abs=0.2)
    assert numbers["readouts"]["readout-teacher"]["neighbours"]["overlap"] == 1.0


def test_the_queue_of_the_study_is_complete() -> None:
    names = [job.config.name for job in sweeps.jobs("train", ["experiment=clip_photos/surrogates"])]
    assert names == [f"surrogate-k{k}-seed0" for k in (2, 3, 1, 4)]
    read = [job.config.task.backbone for job in sweeps.jobs("train", ["experiment=clip_photos/readouts"])]
    assert read == [f"runs/clip_photos/{name}" for name in names]
