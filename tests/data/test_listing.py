"""Folders as people have them: links, other extensions, hidden files; each picture counts once, nothing is silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from raptor.data.image_folder import PictureFolders
from raptor.data.listing import list_pictures
from raptor.data.pictures import picture_extensions
from raptor.errors import ConfigError, SampleError
from raptor.utils.files import user_path
from tests.trees import lay_out

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three pictures for training and one for validation."""
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cats", "dogs"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (9, 9), (40 * i, 0, 99)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def names(data: PictureFolders, split: str = "train") -> list[str]:
    return [os.path.relpath(path, data.root / split) for path, _ in data.list_samples(split)[0]]


def test_order_and_classes_are_those_of_torchvision(tmp_path: Path) -> None:
    root = lay_out(tmp_path) / "imagenet"
    for name in ("a-b/2.jpg", "a/1.JPG", "a.b/3.jpeg", "A/9.png", "z.png"):  # order of folders is that of their paths
        (root / "train/china" / name).parent.mkdir(exist_ok=True)
        Image.new("L", (9, 9)).save(root / "train/china" / name)
    theirs = ImageFolder(str(root / "train"))
    samples, classes = PictureFolders(root).list_samples("train")
    assert samples == theirs.samples
    assert classes == theirs.classes


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../dogs", "0.png"])
def test_links_to_what_is_there_already_count_nothing_twice(root: Path, target: str) -> None:
    expected = [f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(3)]
    name = "again.png" if target == "0.png" else "again"
    (root / "train/cats" / name).symlink_to(target)
    data = PictureFolders(root)
    assert names(data) == expected
    (counts,) = data.passed_over.values()
    assert counts == {"links to what is listed already": 1}


def test_links_to_elsewhere_are_followed_once(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (9, 9)).save(elsewhere / name)
    for link in ("more", "more2"):
        (root / "train/dogs" / link).symlink_to(elsewhere)
    (root / "train/dogs/x.png").symlink_to(elsewhere / "a.png")
    (root / "train/dogs/gone.png").symlink_to(elsewhere / "gone.png")
    (root / "train/dogs/self.png").symlink_to("self.png")
    data = PictureFolders(root)
    assert names(data)[3:] == [
        *(f"dogs/{i}.png" for i in range(3)),
        *("dogs/gone.png", "dogs/self.png", "dogs/more/a.png", "dogs/more/sub/b.png"),
    ]
    data.prepare((3, 8, 8), HALF, HALF)
    for i in (6, 7):
        with pytest.raises(SampleError, match=r"dogs/(gone|self)\.png: expected a file that Pillow decodes"):
            data.train_images[i]


def test_a_class_that_is_a_link_to_another_has_no_picture(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "all").symlink_to(root / split / "dogs")
    with pytest.raises(ConfigError, match=r"no picture in .*train/all \(1 such folders\)\. Fix: set data\.root"):
        PictureFolders(root).list_samples("train")


def test_whole_classes_may_be_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    for split in ("train", "val"):
        (tmp_path / "linked" / split).mkdir()
        for name in ("cats", "dogs"):
            (tmp_path / "linked" / split / name).symlink_to(root / split / name)
    data = PictureFolders(tmp_path / "linked")
    assert names(data) == names(PictureFolders(root))
    assert not data.passed_over


def test_other_extensions_are_read_or_counted_aloud(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = root / "train/cats"
    for name in ("3.GIF", "4.jfif", "5.Tiff", "6.webp"):
        Image.new("RGB", (9, 9)).save(folder / name)
    for name in ("a.heic", "b.HEIC", "labels.txt", "notes", ".DS_Store", "._0.png"):
        (folder / name).touch()
    (folder / "7.jpg").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "7.jpg/8.png")
    (folder / ".ipynb_checkpoints").mkdir()
    os.mkfifo(folder / "pipe.png")
    data = PictureFolders(root)
    data.prepare((3, 8, 8), HALF, HALF)
    data.prepare((3, 8, 8), HALF, HALF)
    assert len(data.train_images) == 6 + 4 + 1
    said = "train: passed over 3 hidden, 2 .heic, 1 .txt, 1 pipes and devices, 1 without extension"
    assert [said in message for message in caplog.messages if "passed over" in message] == [True]
    assert data.summary()["passed_over"] == {
        str(root / "train"): {"hidden": 3, ".heic": 2, ".txt": 1, "pipes and devices": 1, "without extension": 1}
    }


def test_a_class_of_other_files_alone_is_named(root: Path) -> None:
    for path in (root / "val/dogs").iterdir():
        path.rename(path.with_suffix(".heic"))
    data = PictureFolders(root)
    with pytest.raises(ConfigError, match=r"no picture in .*val/dogs"):
        data.prepare((3, 8, 8), HALF, HALF)
    assert data.passed_over == {str(root / "val"): {".heic": 1}}


def test_flat_folders_count_their_subfolders(root: Path) -> None:
    (files,), passed_over = list_pictures([root / "train"], picture_extensions(), recursive=False)
    assert (files, passed_over) == ([], {"folders": 2})
    with pytest.raises(ConfigError, match=r"folder=.*nowhere: expected a folder that can be read"):
        list_pictures([root / "nowhere"], picture_extensions())


def test_names_in_any_script_and_bytes(root: Path) -> None:
    for name in ("été", "猫", os.fsdecode(b"\xff\xfe")):
        for split in ("train", "val"):
            (root / split / name).mkdir()
            Image.new("RGB", (9, 9)).save(root / split / name / f"{name}.png")
    data = PictureFolders(root)
    data.prepare((3, 8, 8), HALF, HALF)
    assert len(data.train_images) == 9
    assert len(data.digest(data.train_images)) == 64


def test_tilde_is_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    data = PictureFolders(f"~/{root.name}")
    assert data.root == root
    assert len(data.list_samples("train")[0]) == 6
    assert PictureFolders(None, pixels="~/cache").pixels == root.parent / "cache"
    with pytest.raises(ConfigError, match=r"data\.root=~nobody-here/x: expected a path .*Fix: write the folder"):
        user_path("data.root", "~nobody-here/x")


@pytest.mark.parametrize("crop", [0, 0.0, -0.5, 1.2, "half", True, float("nan")])
def test_crops_are_shares(root: Path, crop: object) -> None:
    with pytest.raises(ConfigError, match=r"^data\.crop=.*: expected a share of the shorter side.*\. Fix: set 0\.875"):
        PictureFolders(root, crop=crop)  # type: ignore[arg-type]
