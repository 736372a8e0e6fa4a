"""Fashion-MNIST and Tiny-ImageNet in the layouts of their archives, made of a few small files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raptor.data import fashion_mnist
from raptor.data.fashion_mnist import FashionMNIST
from raptor.data.image_folder import PictureFolders
from raptor.data.small_images import Resized
from raptor.data.tiny_imagenet import TinyImageNet
from raptor.errors import ConfigError, SampleError

HALF = (0.5, 0.5, 0.5)


def idx(values: np.ndarray) -> bytes:
    """The IDX format: magic number with type 8 (uint8) and dimensions, sizes, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("train", 5), ("t10k", 2)):
        images, labels = rng.integers(0, 256, (count, 28, 28)), np.arange(count) + 3
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


@pytest.mark.parametrize("unpacked", [False, True])
def test_fashion_mnist_packed_as_debian_has_it_or_not(fashion: Path, unpacked: bool) -> None:
    expected = np.random.default_rng(0).integers(0, 256, (5, 28, 28))
    if unpacked:
        for path in list(fashion.glob("*.gz")):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    before = sorted(fashion.iterdir())
    data = FashionMNIST(fashion, download="nowhere")
    data.prepare((3, 28, 28), HALF, HALF)
    train = data.train_images
    assert isinstance(train, Resized)
    assert (len(train), len(data.val_images), data.num_classes) == (5, 2, 10)
    assert train.images.dtype == train.labels.dtype == torch.uint8
    assert np.array_equal(train.images[:, 0], expected)
    assert [train[i][1] for i in range(5)] == [3, 4, 5, 6, 7]
    assert torch.equal(train[2][0][0], train[2][0][2])
    assert sorted(fashion.iterdir()) == before


def test_fashion_mnist_that_is_damaged_or_missing(
    fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fashion / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    damages = (whole[:-9], b"no gzip", gzip.compress(b"\0\0\x08\1"), gzip.compress(idx(np.zeros((2, 2)))))
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(ConfigError, match=r"^file=.*t10k-labels-idx1-ubyte\.gz: expected the published IDX file"):
            FashionMNIST(fashion, download="nowhere").prepare((1, 28, 28), (0.5,), (0.5,))
    path.unlink()
    with pytest.raises(ConfigError, match=r"data\.root=.*t10k-labels-idx1-ubyte or .*\.gz in it\. Fix: install Debian"):
        FashionMNIST(fashion, download="nowhere").prepare((1, 28, 28), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match=r"^teacher\.options\.in_chans=4: expected 1 or 3"):
        FashionMNIST(fashion, download="nowhere").prepare((4, 28, 28), (0.5,) * 4, (0.5,) * 4)

    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setattr(fashion_mnist.Published, "download", offline)
    with pytest.raises(ConfigError, match=r"data\.root=null: expected a download of Fashion-MNIST, 31 MB \(no route"):
        FashionMNIST(None, download=tmp_path / "empty")


WNIDS = ("n02124075", "n01443537", "n04067472")  # as in the archive, in no order


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three classes; pictures of class i of the archive's list are the grey 40 * i."""
    (tmp_path / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    words = {"n00001740": "entity", WNIDS[0]: "Egyptian cat", WNIDS[1]: "goldfish, Carassius auratus", WNIDS[2]: "reel"}
    (tmp_path / "words.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in words.items()))
    (tmp_path / "val/images").mkdir(parents=True)
    rows = []
    for i, wnid in enumerate(WNIDS):
        folder = tmp_path / "train" / wnid
        (folder / "images").mkdir(parents=True)
        (folder / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
        for n in range(2):
            Image.new("RGB", (64, 64), (40 * i,) * 3).save(folder / "images" / f"{wnid}_{n}.JPEG")
        for n in (2 * i, 2 * i + 1):
            Image.new("L" if i else "RGB", (64, 64), 40 * i if i else (0, 0, 0)).save(
                tmp_path / f"val/images/val_{n}.JPEG"
            )
            rows.append(f"val_{n}.JPEG\t{wnid}\t0\t32\t44\t62")
    (tmp_path / "val/val_annotations.txt").write_text("\n".join(rows[::-1]) + "\n")
    return tmp_path


def test_tiny_imagenet_as_its_archive_unpacks(tiny: Path) -> None:
    data = TinyImageNet(tiny, num_workers=0)
    data.prepare((3, 112, 112), HALF, HALF)
    assert data.num_classes == 3
    assert data.summary() == {"name": "tiny_imagenet", "train": 6, "val": 6}  # boxes lie outside of the folders read
    order = sorted(WNIDS)
    for images in (data.train_images, data.val_images):
        for image, label in (images[i] for i in range(6)):
            assert image.shape == (3, 112, 112)
            assert abs(float(image.float().mean()) - 40 * WNIDS.index(order[label])) < 2
    assert [data.class_names()[wnid] for wnid in order] == ["goldfish, Carassius auratus", "Egyptian cat", "reel"]
    assert data.transform((3, 112, 112))["shorter_side"] == 112


def test_classes_of_tiny_imagenet_are_those_of_its_folders(tiny: Path) -> None:
    """Validation pictures sorted by class make an image folder, with the same numbers for the classes."""
    samples, _ = TinyImageNet(tiny).list_samples("val")
    train, classes = TinyImageNet(tiny).list_samples("train")
    for path, label in samples:
        folder = tiny / "val" / classes[label]
        folder.mkdir(exist_ok=True)
        Path(path).rename(folder / Path(path).name)
    (tiny / "val/images").rmdir()
    assert PictureFolders(tiny).list_samples("train") == (train, classes)
    assert [label for _, label in PictureFolders(tiny).list_samples("val")[0]] == sorted(label for _, label in samples)
    with pytest.raises(ConfigError, match=r"no val/images; .* are data=image_folder\. Fix: fetch http.*zip"):
        TinyImageNet(tiny)


def test_rows_and_pictures_of_tiny_imagenet_that_do_not_meet(tiny: Path) -> None:
    table = tiny / "val/val_annotations.txt"
    whole = table.read_text()
    for text, message in (
        (whole.replace("val_3.JPEG\t", "val_9.JPEG\t"), r"val_3\.JPEG: expected its name and class.*not there"),
        (whole + "val_7.JPEG\tn01443537\n", r"val_7\.JPEG: expected a picture in"),
        (whole.replace("val_3.JPEG\tn01443537", "val_3.JPEG\tn99999999"), r"val_3\.JPEG: .*n99999999"),
    ):
        table.write_text(text)
        with pytest.raises(SampleError, match=message + r".*data\.on_error=skip"):
            TinyImageNet(tiny).list_samples("val")
        skipping = TinyImageNet(tiny, on_error="skip")
        assert len(skipping.list_samples("val")[0]) == (6 if "val_7" in text else 5)
        assert skipping.skipped
    table.write_text(whole.replace("\t", " "))
    with pytest.raises(ConfigError, match=r"val_annotations\.txt: expected 2 columns separated by tabs"):
        TinyImageNet(tiny).list_samples("val")


@pytest.mark.parametrize("gone", ["train", "wnids.txt", "val/val_annotations.txt", "train/n01443537/images"])
def test_tiny_imagenet_that_is_not_there(tiny: Path, gone: str) -> None:
    (tiny / gone).rename(tiny / "elsewhere")
    with pytest.raises(ConfigError, match=rf"data\.root=.*ROOT/train/WNID.*there is no .*{gone}.*Fix: fetch http"):
        TinyImageNet(tiny).list_samples("train")
