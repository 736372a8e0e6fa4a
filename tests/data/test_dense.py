"""ADE20K and NYUv2 in their real layouts, and random transforms that keep a picture and its map together."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from raptor.data.ade20k import ADE20K, IGNORED
from raptor.data.dense import DenseData
from raptor.data.image_folder import PictureFolders
from raptor.data.module import ImageData
from raptor.data.nyuv2 import NYUv2, padding, read_depth
from raptor.data.sampling import Draw, StepSampler, TrainingSet
from raptor.data.transforms import crop_and_flip
from raptor.errors import ConfigError, SampleError
from tests.trees import lay_out

HALF = (0.5, 0.5, 0.5)


def picture(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    """Colours that never repeat, so that each pixel tells where it came from."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 8, np.full_like(rows, seed)], axis=-1).astype(np.uint8)


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    for split, count in (("training", 12), ("validation", 3)):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(i)).save(tmp_path / f"images/{split}/ADE_{i}.png")
            labels = np.repeat(np.arange(20, dtype=np.uint8)[:, None], 30, axis=1)
            Image.fromarray(labels).save(tmp_path / f"annotations/{split}/ADE_{i}.png")
    return tmp_path


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    for split, count in (("train", 12), ("test", 3)):
        rows = []
        folder = tmp_path / "data" / f"nyu2_{split}"
        for i in range(count):
            (folder / f"room_{i // 4}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i)).save(folder / f"room_{i // 4}/{i}.jpg")
            depth = np.full((20, 30), 51 if split == "train" else 2000, np.uint8 if split == "train" else np.uint16)
            depth[0, :3] = (0, 255 if split == "train" else 10000, 1)
            Image.fromarray(depth).save(folder / f"room_{i // 4}/{i}.png")
            rows.append(f"data/nyu2_{split}/room_{i // 4}/{i}.jpg,data/nyu2_{split}/room_{i // 4}/{i}.png")
        (tmp_path / f"data/nyu2_{split}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def prepared(data: ImageData, height: int = 20, width: int = 30) -> ImageData:
    data.prepare((3, height, width), HALF, HALF)
    return data


def test_ade_labels_count_from_0_and_other_is_ignored(ade: Path) -> None:
    data = prepared(ADE20K(ade))
    image, labels = data.val_images[1]
    assert (len(data.train_images), len(data.val_images), data.num_classes) == (12, 3, 150)
    assert np.array_equal(image.permute(1, 2, 0), picture(1))
    assert labels.shape == (1, 20, 30)
    assert labels[0, :, 0].tolist() == [IGNORED, *range(19)]


def test_ade_is_squashed_or_kept_for_sliding_windows(ade: Path) -> None:
    image, labels = prepared(ADE20K(ade), 8, 8).val_images[0]
    assert (image.shape, labels.shape) == ((3, 8, 8), (1, 8, 8))
    sliding = prepared(ADE20K(ade, evaluation="sliding", eval_batch_size=1), 8, 8)
    image, labels = sliding.val_images[0]
    assert (image.shape, labels.shape) == ((3, 8, 12), (1, 20, 30))
    assert sliding.train_images[0][0].shape == (3, 8, 8)
    assert sliding.summary()["evaluation"] == "sliding"
    with pytest.raises(ConfigError, match=r"data\.eval_batch_size=1"):
        ADE20K(ade, evaluation="sliding")


def test_depth_of_8_and_16_bits(nyu: Path) -> None:
    data = prepared(NYUv2(nyu, size=(20, 30)))
    _, train = data.train_images[0]
    _, val = data.val_images[0]
    assert train[0, 0, :4].tolist() == pytest.approx([0.0, 10.0, 10 / 255, 2.0])
    assert val[0, 0, :4].tolist() == pytest.approx([0.0, 10.0, 0.001, 2.0])
    assert train.dtype == val.dtype == torch.float32


def test_nyu_pads_the_normalised_image_and_not_the_depth(nyu: Path) -> None:
    data = prepared(NYUv2(nyu, size=(20, 30)), 24, 33)
    image, depth = data.val_images[0]
    x, target = data.on_after_batch_transfer((image[None], depth[None]))
    assert x.shape == (1, 3, 24, 33)
    assert target.shape == (1, 1, 20, 30)
    assert padding((20, 30), (24, 33)) == (2, 1)
    assert torch.equal(x[0, :, 2:22, 1:31], (image / 255 - 0.5) / 0.5)
    x[0, :, 2:22, 1:31] = 0
    assert not x.any()
    assert padding((480, 640), (490, 644)) == (5, 2)


def test_frames_of_a_room_are_held_out_together(nyu: Path) -> None:
    data = prepared(NYUv2(nyu, size=(20, 30)))
    data.hold_out()
    assert data.held_out is not None
    assert sorted(data.held_out.reshape(3, 4).sum(1).tolist()) == [0, 0, 4]


def crops(data: ImageData, draws: int = 40) -> list[tuple[torch.Tensor, torch.Tensor]]:
    training = TrainingSet(data.originals(), data._augment(), seed=0)
    return [training[Draw(i % len(data.train_images), i)] for i in range(draws)]


def test_joint_crops_keep_picture_and_map_together(ade: Path, nyu: Path) -> None:
    """The map is a function of the picture: where a crop puts a pixel, it puts its label and depth."""
    cut = partial(crop_and_flip, scale=[0.3, 1.0], ratio=[1.5, 1.5])
    nearest = partial(cut, interpolation="nearest-exact")
    for i in range(12):
        depth = np.minimum(250, picture(i)[..., 0].astype(int) + picture(i)[..., 1] // 8).astype(np.uint8)
        Image.fromarray(picture(i)).save(nyu / f"data/nyu2_train/room_{i // 4}/{i}.jpg", format="PNG")
        Image.fromarray(depth).save(nyu / f"data/nyu2_train/room_{i // 4}/{i}.png")
    flipped = set()
    for data in (ADE20K(ade, augment=cut), NYUv2(nyu, size=(20, 30), augment=cut), ADE20K(ade, augment=nearest)):
        assert isinstance(data, DenseData)
        for image, target in crops(prepared(data)):
            assert image.shape == (3, 20, 30)
            assert target.shape == (1, 20, 30)
            row, column = image[0].float() / 8, image[1].float() / 8
            flipped.add(bool(column[0, 0] > column[0, -1]))
            if data.target == "labels":
                known = target[0] != IGNORED
                off = (target[0].float() + 1 - row)[known]
            else:
                off = (target[0] * 25.5 - (8 * row + column))[target[0] < 9.8] / 9
            assert off.abs().mean() < 0.6  # of a pixel: nearest neighbour against interpolation
            assert off.abs().max() < 1.6
    assert flipped == {True, False}


def test_classes_and_flips_alone_pass_through() -> None:
    image = torch.from_numpy(picture(0)).permute(2, 0, 1)
    moved, label = crop_and_flip((20, 30), scale=[1.0, 1.0], ratio=[1.5, 1.5], jitter=[0.0] * 4)(image, 7)
    assert label == 7
    assert torch.equal(moved, image) or torch.equal(moved.flip(-1), image)
    mask = tv_tensors.Mask(image[:1])
    image, mask = crop_and_flip((20, 30), scale=[1.0, 1.0], ratio=[1.5, 1.5])(tv_tensors.Image(image), mask)
    assert torch.equal(image[:1], mask)


def cut_off(root: Path) -> Path:
    path = root / "images/training/ADE_3.png"
    path.write_bytes(path.read_bytes()[:40])
    return path


def other_size(root: Path) -> Path:
    path = root / "annotations/training/ADE_3.png"
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(path)
    return path


def too_many_labels(root: Path) -> Path:
    path = root / "annotations/training/ADE_3.png"
    Image.fromarray(np.full((20, 30), 151, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("spoil", [cut_off, other_size, too_many_labels])
def test_spoilt_files_are_named_or_left_out_and_counted(ade: Path, spoil: Callable[[Path], Path]) -> None:
    path = spoil(ade)
    strict = prepared(ADE20K(ade))
    with pytest.raises(SampleError, match=re.escape(str(path))):
        strict.train_images[5]  # by name: ADE_0, 1, 10, 11, 2, 3
    data = prepared(ADE20K(ade, on_error="skip", batch_size=6))
    loader = data.loader(data.train_images, batch_size=6)
    for _ in range(2):
        assert [len(images) for images, _ in loader] == [5, 6]
    (reason,) = data.summary()["skipped"]
    assert str(path) in reason
    later = ADE20K(ade, on_error="skip")
    later.load_state_dict(data.state_dict())
    assert list(later.skipped) == [reason]


def test_pictures_without_labels_and_labels_without_pictures(ade: Path) -> None:
    (ade / "annotations/training/ADE_2.png").unlink()
    (ade / "images/validation/ADE_1.png").unlink()
    with pytest.raises(SampleError, match=r"ADE_2\.png: expected labels in .*data\.on_error=skip"):
        ADE20K(ade)
    data = ADE20K(ade, on_error="skip")
    assert len(data.skipped) == 2
    assert (len(prepared(data).train_images), len(data.val_images)) == (11, 2)


def test_rows_without_files(nyu: Path) -> None:
    table = nyu / "data/nyu2_train.csv"
    table.write_text(table.read_text() + "data/nyu2_train/room_9/1.jpg,data/nyu2_train/room_9/1.png\nodd\n")
    with pytest.raises(SampleError, match=r"nyu2_train\.csv line 13: .*room_9/1\.jpg does not\. Fix"):
        NYUv2(nyu)
    data = NYUv2(nyu, on_error="skip", size=(20, 30))
    assert len(prepared(data).train_images) == 12
    assert len(data.summary()["skipped"]) == 2


def test_depth_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "colour.png"
    Image.fromarray(picture(0)).save(path)
    with pytest.raises(SampleError, match=r"colour\.png: expected one channel of values, the file has 3 \(RGB\)"):
        read_depth(path)


@pytest.mark.parametrize("kind", [ADE20K, NYUv2])
def test_missing_data_tells_layout_source_and_key(tmp_path: Path, kind: type[DenseData]) -> None:
    with pytest.raises(ConfigError) as error:
        kind(tmp_path / "nowhere")
    message = str(error.value)
    assert f"data.root={tmp_path / 'nowhere'}" in message
    words = {ADE20K: ("ADEChallengeData2016.zip", "RAPTOR_ADE20K"), NYUv2: ("Kaggle", "RAPTOR_NYUV2")}[kind]
    assert all(word in message for word in words)


def test_a_teacher_that_does_not_fit_the_frames(nyu: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.options\.img_size.*\[490,644\]"):
        prepared(NYUv2(nyu), 224, 224)


def test_a_training_batch_of_nothing_is_an_error(ade: Path) -> None:
    for i in range(12):
        (ade / f"images/training/ADE_{i}.png").write_bytes(b"")
    data = prepared(ADE20K(ade, on_error="skip", batch_size=4))
    assert list(data.loader(data.train_images, batch_size=4)) == []
    assert len(data.skipped) == 12
    batches = StepSampler(12, 4, steps=2, seed=0)
    with pytest.raises(ConfigError, match=r"in every training batch.*ADE_"):
        list(data.loader(TrainingSet(data.train_images, None, 0), batch_sampler=batches))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cut_off_jpeg_in_a_folder_of_classes(tmp_path: Path, workers: int) -> None:
    root = lay_out(tmp_path) / "imagenet"
    path = root / "train" / "china" / "3.JPEG"
    path.write_bytes(path.read_bytes()[:700])
    data = PictureFolders(root, num_workers=workers, on_error="skip")
    data.prepare((3, 56, 56), HALF, HALF)
    assert sum(len(images) for images, _ in data.loader(data.train_images, batch_size=8)) == 23
    (reason,) = data.summary()["skipped"]
    assert str(path) in reason
    strict = PictureFolders(root, num_workers=workers)
    strict.prepare((3, 56, 56), HALF, HALF)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        list(strict.loader(strict.train_images, batch_size=8))


def test_tables_of_other_programs_and_linked_folders(nyu: Path) -> None:
    table = nyu / "data/nyu2_train.csv"
    table.write_text("\ufeff" + table.read_text() + "\n", encoding="utf-8")
    (nyu / "data/nyu2_train").rename(nyu / "elsewhere")
    (nyu / "data/nyu2_train").symlink_to(nyu / "elsewhere")
    assert len(prepared(NYUv2(nyu, size=(20, 30))).train_images) == 12


def test_parts_of_a_scene_are_one_group(nyu: Path) -> None:
    data = NYUv2(nyu, size=(20, 30))
    names = ["den_0001a_out", "den_0001b_out", "den_0002_out", "den_0002"]
    data._files["train"] = [(nyu / name / "1.jpg", nyu / name / "1.png") for name in names]
    assert data.groups() == ["den_0001", "den_0001", "den_0002", "den_0002"]


def test_sliding_judges_held_out_pictures_as_it_judges_validation(ade: Path) -> None:
    data = prepared(ADE20K(ade, evaluation="sliding", eval_batch_size=1), 8, 8)
    data.hold_out()
    image, labels = data.eval_images("held_out")[0]
    assert (image.shape, labels.shape) == ((3, 8, 12), (1, 20, 30))


def test_a_cache_of_crops_is_not_cropped_anew(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.pixels=.*cropped already.*data\.pixels=null"):
        PictureFolders(None, pixels=tmp_path, augment=partial(crop_and_flip))
