"""``raptor.extract`` as users call it: stores feed training, survive kills, and say what is wrong with them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raptor.errors import ConfigError, StoreError
from tests.conftest import start
from tests.data.test_store import flip, tree

QUIET = ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "surrogate.boundaries=[5]"]
Call = Callable[..., None]


@pytest.fixture(autouse=True)
def loud_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let errors through as exceptions, not as the exit of a process."""
    monkeypatch.setattr("raptor.cli.command.explain", lambda *_: None)


def result(tmp_path: Path, name: str) -> dict[str, object]:
    return json.loads((tmp_path / "runs" / "default" / name / "result.json").read_text())


@pytest.mark.parametrize("task", ["distill", "finetune"])
def test_stored_and_online_activations_train_the_same_weights(call: Call, tmp_path: Path, task: str) -> None:
    call("extract", "shard_size=200")
    for source in ("online", "cached"):
        call("train", f"task={task}", f"activations={source}", f"name={source}", "trainer.max_steps=20", *QUIET)
    online, cached = result(tmp_path, "online"), result(tmp_path, "cached")
    assert online["weights_sha256"] == cached["weights_sha256"]
    assert online["metrics"] == cached["metrics"]
    assert (
        online["history"]["train/loss" if task == "finetune" else "train/5-12/loss"]
        == (cached["history"]["train/loss" if task == "finetune" else "train/5-12/loss"])
    )


def test_pixels_of_the_cache_train_the_same_weights(call: Call, tmp_path: Path) -> None:
    call("extract", "content=pixels", "shard_size=200")
    for name, pixels in (("plain", "null"), ("cached", str(tmp_path / "stores" / "digits-pixels"))):
        call("train", f"data.pixels={pixels}", f"name={name}", "trainer.max_steps=10", *QUIET)
    assert result(tmp_path, "plain")["weights_sha256"] == result(tmp_path, "cached")["weights_sha256"]
    with pytest.raises(StoreError, match=r"transform\.size: \[8, 8\] there, \[16, 16\] now"):
        call("train", f"data.pixels={pixels}", "teacher.options.img_size=16", "teacher.weights=null", "name=other")


def test_a_cache_of_other_pictures_is_refused_and_unreadable_ones_are_named(call: Call, tmp_path: Path) -> None:
    from PIL import Image

    for root, names in (("a", ["1", "2", "3"]), ("b", ["1", "2", "4"])):
        for split in ("train", "val"):
            (tmp_path / root / split / "cats").mkdir(parents=True)
            for name in names:
                Image.new("L", (20, 16), 50 * int(name)).save(tmp_path / root / split / "cats" / f"{name}.png")
    pictures = ["data=image_folder", "data.num_workers=0", "data.batch_size=2"]
    call("extract", *pictures, "content=pixels", "data.root=a")
    train = [*pictures, "data.pixels=stores/image_folder-pixels", "trainer.max_steps=1", *QUIET[:1], "surrogate.k=2"]
    with pytest.raises(StoreError, match="it was made of other train images"):
        call("train", *train, "data.root=b", "name=b")
    call("train", *train, "data.root=a", "name=a")
    call("train", *train, "data.root=null", "name=cache")
    assert result(tmp_path, "a")["weights_sha256"] == result(tmp_path, "cache")["weights_sha256"]
    (tmp_path / "b" / "train" / "cats" / "4.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"picture=b/train/cats/4\.png: expected a file that Pillow decodes"):
        call("extract", *pictures, "content=pixels", "data.root=b", "store=b_pixels")


def test_pictures_that_cannot_be_read_are_left_out_of_stores_and_of_trainings_from_them(
    call: Call, tmp_path: Path
) -> None:
    from PIL import Image

    for split in ("train", "val"):
        folder = tmp_path / "a" / split / "cats"
        folder.mkdir(parents=True)
        for i in range(8):
            Image.new("L", (20, 16), 25 * i).save(folder / f"{i}.png")
    for split, name in (("train", "0"), ("train", "5"), ("val", "7")):
        (tmp_path / "a" / split / "cats" / f"{name}.png").write_bytes(b"no picture")
    skip = ["data=image_folder", "data.num_workers=0", "data.batch_size=4", "data.root=a", "data.on_error=skip"]
    call("extract", *skip, "content=pixels", "shard_size=3", "store=pixels")
    call("extract", *skip, "shard_size=3", "store=layers")
    left_out = json.loads((tmp_path / "pixels/train/manifest.json").read_text())["left_out"]
    assert {int(sample): "train/cats/" in reason for sample, reason in left_out.items()} == {0: True, 5: True}
    train = [*skip, "trainer.max_steps=4", *QUIET]
    call("train", *train, "name=plain")
    call("train", *train, "name=pixels", "data.pixels=pixels")
    call("train", *train, "name=layers", "activations=cached", "activations.store=layers")
    plain, pixels, layers = (result(tmp_path, name) for name in ("plain", "pixels", "layers"))
    assert plain["weights_sha256"] == pixels["weights_sha256"]
    assert plain["metrics"] == pixels["metrics"]
    assert plain["metrics"] == pytest.approx(layers["metrics"], abs=1e-4)  # of batches of other sizes
    reasons = [sorted(run["data"]["skipped"]) for run in (plain, pixels, layers)]
    assert reasons[0] == reasons[1] == reasons[2]
    assert len(reasons[0]) == 3
    strict = [*train, "data.on_error=raise", "name=strict"]
    for source in (["data.pixels=pixels"], ["activations=cached", "activations.store=layers"]):
        with pytest.raises(
            ConfigError, match=r"picture=a/(train|val)/cats/[057]\.png: expected .* Fix: .*on_error=skip"
        ):
            call("train", *strict, *source)


@pytest.mark.slow
def test_an_error_in_a_loading_process_is_one_message(call: Call, tmp_path: Path) -> None:
    call("extract", "shard_size=400")
    flip(tmp_path / "stores/digits-digits_vit/shards/00000/layer07.bin", 12345)
    arguments = ["activations=cached", "data.num_workers=1", "name=run", *QUIET]
    process = start("train", *arguments, cwd=tmp_path, stderr=subprocess.PIPE)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert re.search(
        r"error: shard 0 of stores/digits-digits_vit: expected .*layer07\.bin has changed .*repair=true", errors
    )
    assert "Traceback" not in errors


def test_bfloat16_stores_are_half_as_large_and_train(call: Call, tmp_path: Path) -> None:
    call("extract", "dtype=bfloat16", "layers=[0,1,2,3,4,5]", "store=half")
    assert (tmp_path / "half/shards/00000/layer05.bin").stat().st_size == 1024 * 21 * 48 * 2
    arguments = ["task=distill", "surrogate.phases=[[0,5]]", "activations=cached", "activations.store=half"]
    call("train", *arguments, "name=run", "trainer.max_steps=3", *QUIET[:2])
    assert result(tmp_path, "run")["steps"] == 3
    with pytest.raises(StoreError, match=r"the layers 0\.\.12, of which 6\.\.12 are missing \(it has 0\.\.5\)"):
        call("train", "activations=cached", "activations.store=half", "name=whole", *QUIET)


def test_damage_is_found_by_verify_and_by_training_and_mended(call: Call, tmp_path: Path) -> None:
    store = tmp_path / "stores" / "digits-digits_vit"
    call("extract", "shard_size=400")
    whole = tree(store)
    call("extract", "shard_size=400", "verify=true")
    flip(store / "shards/00002/layer07.bin", 12345)
    shutil.rmtree(store / "shards/00001")
    with pytest.raises(
        StoreError, match=r"(?s)whole shards, 2 are damaged or missing.*shard 1 .*shard 2 .*layer07.*repair=true"
    ):
        call("extract", "shard_size=400", "verify=true")
    with pytest.raises(StoreError, match=r"shard [12] of .* repair=true"):
        call("train", "activations=cached", "name=run", *QUIET)
    call("extract", "shard_size=400", "repair=true")
    assert tree(store) == whole


def test_what_cannot_work_is_refused_before_anything_is_written(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argument, message in (
        ("content=pictures", r"^content=pictures: expected activations or pixels\."),
        ("dtype=float64", "expected float32 or bfloat16 or float16"),
        ("layers=[3,13]", r"0\.\.12"),
        ("workers=0", "expected integer >= 1"),
        ("part=2", r"parts=1"),
        ("splits=test", "expected train or val"),
    ):
        with pytest.raises(ConfigError, match=message):
            call("extract", argument)
    with pytest.raises(StoreError, match=r"expected a store of activations\. Fix: make it with"):
        call("train", "activations=cached", "name=run", *QUIET)
    with pytest.raises(ConfigError, match="activations=cached: expected online: task=linear_probe reads images"):
        call("train", "task=linear_probe", "activations=cached", "name=run", *QUIET)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=75_000_000))
    with pytest.raises(StoreError, match=r"a disk with 75\.3 MB free for what is still to be written .* it has 75 MB"):
        call("extract")
    assert not (tmp_path / "stores").exists()


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(tmp_path: Path) -> None:
    options = ["shard_size=32", "store=store"]
    process = start("extract", *options, cwd=tmp_path)
    while len(list((tmp_path / "store/shards").glob("0*"))) < 3:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not json.loads((tmp_path / "store/manifest.json").read_text()).get("complete")
    again = [start("extract", *options, f"part={part}", "parts=2", cwd=tmp_path) for part in (0, 1)]
    assert [process.wait() for process in again] == [0, 0]
    assert start("extract", "shard_size=32", "workers=2", "store=whole", cwd=tmp_path).wait() == 0
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")
