"""Signed mean offsets of image and map, in output pixels, of every transform that resizes both: ramps show positions.

Red (green) of the picture is four times the column (row) of a pixel, and a map is its column. Pixel ``j`` of a
crop that begins at ``first`` and is resized from ``n`` to ``m`` pixels shows ``first + (j + 0.5) * n / m - 0.5``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from raptor.data.ade20k import ADE20K
from raptor.data.dense import DenseData
from raptor.data.image_folder import PictureFolders
from raptor.data.nyuv2 import NYUv2, padding
from raptor.data.options import AugmentNode
from raptor.data.transforms import Map, crop_and_flip
from raptor.utils.files import CONFIGS
from raptor.utils.options import parse

HALF = (0.5, 0.5, 0.5)
H, W, GAIN = 47, 61, 4
LIMIT = 0.02  # output pixels


def ramp(height: int = H, width: int = W) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (np.stack([columns, rows, np.zeros_like(rows)], axis=-1) * GAIN).astype(np.uint8)


def columns(height: int = H, width: int = W) -> np.ndarray:
    return np.broadcast_to(np.arange(width), (height, width))


def true(size: int, first: int, part: int) -> Tensor:
    """Position in the picture of each of ``size`` pixels of a crop of ``part`` pixels."""
    return first + (torch.arange(size) + 0.5) * part / size - 0.5


def offset(shown: Tensor, expected: Tensor, scale: float) -> float:
    """Signed mean of the difference in output pixels; edges, where filters have no neighbours, are left out."""
    edge = shown.shape[-1] // 10 + 1
    return float((shown.double() - expected)[..., edge : shown.shape[-1] - edge].mean()) / scale


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    for split, count in (("training", 2), ("validation", 2)):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(ramp()).save(tmp_path / f"images/{split}/{i}.png")
            labels = (columns(), columns(W, H).T)[i] + 1  # columns of the first picture, rows of the second
            Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"annotations/{split}/{i}.png")
    return tmp_path


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    """Depth in millimetres is a hundred times the column plus one."""
    (tmp_path / "data").mkdir()
    Image.fromarray(ramp()).save(tmp_path / "data/picture.png")
    Image.fromarray((100 * (columns() + 1)).astype(np.uint16)).save(tmp_path / "data/depth.png")
    for split in ("train", "test"):
        (tmp_path / f"data/nyu2_{split}.csv").write_text("data/picture.png,data/depth.png\n")
    return tmp_path


def shown(image: Tensor, target: Tensor, data: DenseData) -> tuple[Tensor, Tensor]:
    """Columns that an image and its map show."""
    return image[0].double() / GAIN, target[0].double() if data.target == "labels" else target[0].double() * 10 - 1


SIZES = [(32, 40), (96, 112), (31, 45), (64, 173)]


@pytest.mark.parametrize("size", SIZES)
def test_squashed_pictures_and_labels(ade: Path, size: tuple[int, int]) -> None:
    data = ADE20K(ade)
    data.prepare((3, *size), HALF, HALF)
    for axis, full in ((1, W), (0, H)):
        picture, labels = data.val_images[1 - axis]
        x, y = picture[1 - axis].double() / GAIN, labels[0].double()
        x, y = (x, y) if axis else (x.T, y.T)
        expected, scale = true(size[axis], 0, full), full / size[axis]
        assert abs(offset(x, expected, scale)) < LIMIT
        assert abs(offset(y, expected, scale)) < LIMIT
        assert abs(offset(y, x, scale)) < LIMIT


@pytest.mark.parametrize("size", [24, 32, 96])
def test_sliding_pictures_whose_answer_is_stretched_over_their_labels(ade: Path, size: int) -> None:
    data = ADE20K(ade, evaluation="sliding", eval_batch_size=1)
    data.prepare((3, size, size), HALF, HALF)
    picture, labels = data.val_images[0]
    assert labels.shape[-2:] == (H, W)
    answer = torch.nn.functional.interpolate(picture[None].float(), size=(H, W), mode="bilinear", align_corners=False)
    image, labels = shown(answer[0], labels, data)
    assert abs(offset(image, labels, 1.0)) < LIMIT


@pytest.mark.parametrize("size", SIZES)
def test_frames_and_depth_resized_and_padded(nyu: Path, size: tuple[int, int]) -> None:
    data = NYUv2(nyu, size=size)
    padded = (size[0] + 5, size[1] + 8)
    data.prepare((3, *padded), HALF, HALF)
    image, depth = data.val_images[0]
    expected, scale = true(size[1], 0, W), W / size[1]
    for x in shown(image, depth, data):
        assert abs(offset(x, expected, scale)) < LIMIT
    batch, target = data.on_after_batch_transfer((image[None], depth[None]))
    top, left = padding(size, padded)
    inside = batch[0, :, top : top + size[0], left : left + size[1]] * 0.5 + 0.5
    x, z = shown(inside * 255, target[0], data)
    assert abs(offset(x, z, scale)) < LIMIT


def augment(node: Any) -> Any:
    return parse(AugmentNode, OmegaConf.to_container(OmegaConf.create(node)), "data.augment").build()  # type: ignore[type-abstract]


def forms() -> dict[str, Any]:
    """The forms in which configurations name the transform: partial, of a protocol, inline, and made for a size."""
    target = {"_target_": "raptor.data.transforms.crop_and_flip"}
    of = {name: OmegaConf.load(CONFIGS / f"protocol/{name}.yaml").data.augment for name in ("ade20k", "nyuv2")}
    return {
        "partial": partial(crop_and_flip, scale=[0.2, 1.0], ratio=[0.75, 2.0]),
        **of,
        "inline": {**target, "_partial_": True, "scale": [0.5, 1.0]},
        "bicubic": {**target, "_partial_": True, "scale": [0.1, 0.4], "interpolation": "bicubic"},
        "made": {**target, "size": [40, 52], "interpolation": "bilinear"},
    }


@pytest.mark.parametrize("name", forms())
def test_random_crops_and_flips(ade: Path, nyu: Path, name: str) -> None:
    """Which crop was drawn is known by drawing it again from the same seed."""
    form = forms()[name]
    for data in (ADE20K(ade), NYUv2(nyu, size=(40, 52))):
        data.augment = form if callable(form) else augment(form)
        data.prepare((3, 40, 52), HALF, HALF)
        transform = data._augment()
        assert isinstance(transform, v2.Compose)
        offsets: list[tuple[float, ...]] = []
        flips = set()
        for seed in range(60):
            picture, target = data.originals()[0]
            torch.manual_seed(seed)
            part = transform.transforms[0].make_params([picture])
            flipped = bool(torch.rand(1) < 0.5)
            flips.add(flipped)
            torch.manual_seed(seed)
            result = transform(picture, target)
            image, shown_by_map = shown(result[0], result[1], data)
            expected, scale = true(52, part["left"], part["width"]), part["width"] / 52
            expected = expected.flip(0) if flipped else expected
            sign = -scale if flipped else scale  # offsets to the right of the output are positive
            pairs = [(shown_by_map, expected)]
            if name != "nyuv2":  # whose jitter changes colours, which are positions here
                pairs += [(image, expected), (shown_by_map, image)]
            offsets.append(tuple(offset(a, b, sign) for a, b in pairs))
        assert flips == {True, False}
        assert all(abs(np.mean(kind)) < LIMIT for kind in zip(*offsets, strict=True)), np.mean(offsets, axis=0)


def test_other_transforms_of_torchvision_are_centred_too() -> None:
    """Users name any v2 transform as ``data.augment``; whatever resizes a map does it at pixel centres."""
    image = tv_tensors.Image(torch.from_numpy(ramp()).permute(2, 0, 1))
    target = Map(torch.from_numpy(columns()[None].astype(np.uint8)))
    torch.manual_seed(0)
    for transform in (
        v2.Resize(33),
        v2.ScaleJitter((70, 90)),
        v2.RandomShortestSize([29, 71]),
        v2.RandomResize(30, 90),
    ):
        differences = []
        for _ in range(20):
            moved, moved_map = transform(image, target)
            scale = W / moved.shape[-1]
            differences.append(offset(moved_map[0], moved[0].double() / GAIN, scale))
        assert abs(np.mean(differences)) < LIMIT, transform
        assert isinstance(moved_map, Map)


@pytest.mark.parametrize("size", [28, 33, 56])
def test_resized_and_cropped_pictures_of_folders_and_pixel_caches(tmp_path: Path, size: int) -> None:
    """A cache holds what the dataset gives, byte for byte, so its geometry is that of the dataset."""
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(ramp()).save(tmp_path / split / "a" / "0.png")
    data = PictureFolders(tmp_path)
    data.prepare((3, size, size), HALF, HALF)
    image, _ = data.train_images[0]
    shorter = round(size / 0.875)
    for channel, full in ((0, W), (1, H)):
        whole = shorter if full == H else int(shorter * W / H)
        first = round((whole - size) / 2)
        expected = true(whole, 0, full)[first : first + size]
        values = image[channel].double() / GAIN
        assert abs(offset(values if channel == 0 else values.T, expected, full / whole)) < LIMIT
