from pathlib import Path

import numpy as np
import pytest
import torch

from raptor.data import cifar100
from raptor.data.cifar100 import CIFAR100, RECORD
from raptor.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three and two pictures, whose red, green and blue planes are 10, 20 and 30 times their number."""
    for split, count in (("train", 3), ("test", 2)):
        records = np.zeros((count, RECORD), np.uint8)
        for i in range(count):
            records[i] = [i, 90 + i, *np.repeat([10 * i, 20 * i, 30 * i], 1024)]
        records.tofile(tmp_path / f"{split}.bin")
    return tmp_path


def test_pictures_and_fine_labels_of_the_binary_files(root: Path) -> None:
    data = CIFAR100(root, download="nowhere")
    data.prepare((3, 32, 32), (0.5,) * 3, (0.5,) * 3)
    assert (data.num_classes, len(data.train_images), len(data.val_images)) == (100, 3, 2)
    image, label = data.train_images[2]
    assert image.dtype == torch.uint8 and image.shape == (3, 32, 32)
    assert image.flatten(1).float().mean(1).tolist() == [20.0, 40.0, 60.0]
    assert label == 92
    data.prepare((3, 16, 16), (0.5,) * 3, (0.5,) * 3)
    assert data.val_images[1][0].shape == (3, 16, 16)


def test_mistakes(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wants 1 channels: use 3"):
        CIFAR100(root, download="nowhere").prepare((1, 32, 32), (0.5,), (0.5,))
    (root / "test.bin").write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"test\.bin is damaged \(5 bytes"):
        CIFAR100(root, download="nowhere").prepare((3, 32, 32), (0.5,) * 3, (0.5,) * 3)
    (root / "test.bin").unlink()
    with pytest.raises(ConfigError, match=r"data\.root=.* has no test\.bin"):
        CIFAR100(root, download="nowhere").prepare((3, 32, 32), (0.5,) * 3, (0.5,) * 3)

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(cifar100, "download_and_extract_archive", offline)
    with pytest.raises(ConfigError, match=r"https.* cannot be downloaded .*no route to host.*set data\.root"):
        CIFAR100(None, download=tmp_path / "data")
