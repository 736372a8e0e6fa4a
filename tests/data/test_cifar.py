"""CIFAR in torchvision's layout: a tiny archive whose checksums are its own."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as published

from raptor.data.cifar import CIFAR10, CIFAR100
from raptor.data.small_images import Resized
from raptor.errors import ConfigError

HALF = (0.5, 0.5, 0.5)


def write_batch(path: Path, first: int, count: int, label: str) -> str:
    """Pictures whose red, green and blue planes are one, two and three times their number; the digest of the file."""
    planes = (
        np.arange(first, first + count, dtype=np.uint8)[:, None, None] * np.array([1, 2, 3], np.uint8)[None, :, None]
    )
    batch = {"data": planes.repeat(1024, 2).reshape(count, -1), label: list(range(90 + first, 90 + first + count))}
    path.write_bytes(pickle.dumps(batch))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=[CIFAR10, CIFAR100])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[CIFAR10 | CIFAR100]:
    """The class, its publisher's checksums replaced by those of small files in ``tmp_path``."""
    source = request.param.source
    folder = tmp_path / source.base_folder
    folder.mkdir()
    label = "labels" if request.param is CIFAR10 else "fine_labels"
    for attribute, first in (("train_list", 0), ("test_list", 50)):
        names = [name for name, _ in getattr(source, attribute)]
        sums = [write_batch(folder / name, first + 3 * i, 3, label) for i, name in enumerate(names)]
        monkeypatch.setattr(source, attribute, [list(pair) for pair in zip(names, sums, strict=True)])
    (folder / source.meta["filename"]).write_bytes(pickle.dumps({source.meta["key"]: ["a", "b"]}))
    meta = hashlib.md5((folder / source.meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta})
    return request.param


def test_pictures_and_labels_in_the_publishers_order(kind: type[CIFAR10 | CIFAR100], tmp_path: Path) -> None:
    for root, download in ((tmp_path, "nowhere"), (tmp_path / kind.source.base_folder, "nowhere"), (None, tmp_path)):
        data = kind(root, download=download)
        data.prepare((3, 32, 32), HALF, HALF)
        train, val = data.train_images, data.val_images
        assert isinstance(train, Resized)
        assert (data.num_classes, len(train), len(val)) == ((10, 15, 3) if kind is CIFAR10 else (100, 3, 3))
        assert train.images.dtype == torch.uint8 and train.images.shape[1:] == (3, 32, 32)
        for i in range(len(train)):
            image, label = train[i]
            assert image.flatten(1).unique(dim=1).tolist() == [[i], [2 * i], [3 * i]]
            assert label == 90 + i
    data.prepare((3, 16, 16), HALF, HALF)
    assert data.val_images[1][0].shape == (3, 16, 16)


def test_other_files_are_refused_before_they_are_unpickled(kind: type[CIFAR10 | CIFAR100], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    batch = tmp_path / kind.source.base_folder / kind.source.test_list[0][0]
    batch.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConfigError, match=r"^data\.root=.*with its checksum .*Fix: unpack https.*or to null"):
        kind(tmp_path, download="nowhere").prepare((3, 32, 32), HALF, HALF)
    assert not (tmp_path / "sprung").exists()


def test_missing_data_tells_where_to_get_it(
    kind: type[CIFAR10 | CIFAR100], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.root=.*: expected {kind.source.base_folder} .*Fix: unpack https"):
        kind(tmp_path / "elsewhere", download="nowhere").prepare((3, 32, 32), HALF, HALF)
    with pytest.raises(ConfigError, match=r"^teacher\.options\.in_chans=1: expected 3"):
        kind(tmp_path, download="nowhere").prepare((1, 32, 32), (0.5,), (0.5,))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(published.cifar, "download_and_extract_archive", offline)
    with pytest.raises(ConfigError, match=r"data\.root=null: .*https.*no route to host.*Fix: .*set data\.root"):
        kind(None, download=tmp_path / "empty").prepare((3, 32, 32), HALF, HALF)
