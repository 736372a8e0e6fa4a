"""The miniature: real layouts, exact masks, measured depth, nothing shared between training and validation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from raptor.data.ade20k import ADE20K, IGNORED
from raptor.data.image_folder import PictureFolders
from raptor.data.nyuv2 import NYUv2

SCRIPT = Path(__file__).parent.parent / "scripts" / "make_miniature.py"
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_miniature", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.STAMPS.is_dir():
        pytest.skip("needs Debian's tuxpaint-stamps-default")
    pytest.importorskip("skimage", reason="needs scikit-image")
    monkeypatch.setattr(module, "COUNTS", {"imagenet": (2, 1), "ade20k": (3, 2), "nyuv2": (4, 2)})
    return module


def make(script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Path:
    monkeypatch.setattr(sys, "argv", ["make_miniature.py", str(folder), *arguments])
    script.main()
    return folder


def test_trees_in_the_real_layouts(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(script, tmp_path / "a", monkeypatch)
    pictures = PictureFolders(root / "imagenet")
    pictures.prepare((3, 64, 64), HALF, HALF)
    assert (pictures.num_classes, len(pictures.train_images), len(pictures.val_images)) == (20, 40, 20)
    labelled = ADE20K(root / "ADEChallengeData2016", num_classes=21)
    labelled.prepare((3, 96, 96), HALF, HALF)
    labels = np.concatenate([labelled.train_images[i][1].numpy() for i in range(3)])
    assert 0 in labels
    assert IGNORED in labels
    assert len(np.unique(labels)) > 4
    rooms = NYUv2(root / "nyu_data", size=script.FRAME)
    rooms.prepare((3, 120, 160), HALF, HALF)
    for images in (rooms.train_images, rooms.val_images):
        depth = np.concatenate([images[i][1].numpy() for i in range(2)])
        known = depth[depth > 0]
        assert 2.0 < known.min() < known.max() < 6.0  # the garage of the stereo picture
        assert (depth > 0).mean() > 0.7


def test_the_same_seed_gives_the_same_bytes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [make(script, tmp_path / name, monkeypatch) for name in "ab"]
    files = [{p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in roots]
    assert files[0] == files[1]
    assert len(files[0]) == 40 + 20 + 2 * 5 + 2 * 6 + 2
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(SystemExit, match=r"expected a folder that does not exist yet\. Fix: delete it"):
        make(script, roots[0], monkeypatch)


def test_masks_are_exact(script: ModuleType) -> None:
    scenes = script.Scenes(
        script.read_objects(script.STAMPS), script.read_backdrops()["train"], np.random.default_rng(0)
    )
    for name in list(script.OBJECTS)[:5]:
        canvas = Image.new("RGB", (96, 96), (255, 0, 255))
        opacity = scenes.place(canvas, name, 0.5, 0.5)
        changed = (np.asarray(canvas) != (255, 0, 255)).any(-1)
        assert (opacity[changed] > 0).all()
        assert changed[opacity > 250].mean() > 0.99
        assert 0.02 < (opacity > 250).mean() < 0.3


def test_training_and_validation_share_neither_backdrop_nor_pixel(script: ModuleType) -> None:
    assert not set(script.BACKDROPS["train"]) & set(script.BACKDROPS["val"])
    columns = {
        split: {c for band in bands for c in range(band.start, band.stop)} for split, bands in script.BANDS.items()
    }
    assert not columns["train"] & columns["test"]
    assert columns["train"] | columns["test"] == set(range(741))


def test_missing_cut_outs_are_named(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"a folder with .*\.png\. Fix: sudo apt-get install tuxpaint-stamps-default"):
        make(script, tmp_path / "a", monkeypatch, "--stamps", str(tmp_path))
    assert not (tmp_path / "a").exists()
