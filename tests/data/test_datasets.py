from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from raptor.data.digits import Digits
from raptor.data.image_folder import PictureFolders
from raptor.errors import ConfigError


def test_digits_are_scikit_learns_and_split_once_for_all() -> None:
    data = Digits()
    data.prepare((1, 8, 8), (0.0,), (1.0,))
    train, val = data.train_images.tensors, data.val_images.tensors  # type: ignore[attr-defined]
    assert (len(train[0]), len(val[0])) == (1437, 360)
    together = torch.cat([train[0], val[0]]).flatten(1)
    source = torch.tensor(load_digits().data * 255 / 16).round().to(torch.uint8)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, source.tolist()))
    shares = torch.bincount(val[1]) / torch.bincount(torch.cat([train[1], val[1]]))
    assert (shares - 0.2).abs().max() < 0.01
    again = Digits(batch_size=7)
    again.prepare((1, 8, 8), (0.0,), (1.0,), seed=3)
    assert torch.equal(again.val_images.tensors[0], val[0])  # type: ignore[attr-defined]


def test_digits_take_the_shape_of_the_model() -> None:
    data = Digits()
    data.prepare((3, 28, 28), (0.5,) * 3, (0.5,) * 3)
    image, _ = data.train_images[0]
    assert image.shape == (3, 28, 28)
    normal = data.normalize(torch.tensor([[[[0]]], [[[255]]]], dtype=torch.uint8).expand(-1, 3, -1, -1))
    assert normal[0].unique().tolist() == [-1.0]
    assert normal[1].unique().tolist() == [1.0]
    with pytest.raises(ConfigError, match=r"in_chans=4: expected 1 or 3"):
        data.prepare((4, 8, 8), (0.5,) * 4, (0.5,) * 4)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        for split, crops in (("train", 3), ("val", 1)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(crops):
                Image.fromarray(photo[40 * i : 300 + 40 * i, 30 * i : 400 + 30 * i]).save(folder / f"{i}.png")
    return tmp_path


def test_picture_folders_resize_and_crop_from_the_centre(pictures: Path) -> None:
    data = PictureFolders(pictures)
    data.prepare((3, 56, 56), (0.5,) * 3, (0.5,) * 3)
    image, label = data.train_images[0]
    assert data.num_classes == 2
    assert data.summary() == {"name": "image_folder", "train": 6, "val": 2}
    assert label == 0
    expected = Image.fromarray(load_sample_images().images[0][:300, :400])
    width, height = int(400 * 64 / 300), 64
    expected = expected.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - 56) / 2), round((height - 56) / 2)
    crop = np.asarray(expected.crop((left, top, left + 56, top + 56))).transpose(2, 0, 1)
    assert np.abs(image.numpy().astype(int) - crop.astype(int)).mean() < 2


def test_missing_or_unequal_folders_are_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=.*ROOT/train/CLASS.*no folder train\. Fix: "):
        PictureFolders(tmp_path / "nowhere")
    (pictures / "val" / "boat").mkdir()
    with pytest.raises(ConfigError, match=r"differ between train and val \(\['boat'\]\)\. Fix: "):
        PictureFolders(pictures)
