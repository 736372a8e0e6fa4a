"""Pictures as people have them: depth of colour, transparency, EXIF, frames, damage; each right, or refused by name."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raptor.data.ade20k import ADE20K
from raptor.data.nyuv2 import read_depth
from raptor.data.pictures import picture_extensions, read_map, read_picture
from raptor.errors import SampleError

GREY = np.linspace(0, 255, 48).astype(np.uint8)[None].repeat(40, 0)
COLOURS = np.stack([GREY, GREY.T.repeat(2, 1)[:40, :48] // 2, np.full_like(GREY, 9)], axis=-1)
WIDE = GREY.astype(np.uint16) * 257
ORIENTATION = 0x0112


def rgb(path: Path) -> np.ndarray:
    return np.asarray(read_picture(path)).astype(int)


def grey(path: Path) -> np.ndarray:
    image = rgb(path)
    assert (image == image[..., :1]).all()
    return image[..., 0]


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm", "x.jp2"])
def test_16_bit_grey_spans_0_to_255(tmp_path: Path, name: str) -> None:
    Image.fromarray(WIDE).save(tmp_path / name)
    assert (grey(tmp_path / name) == GREY).all()
    Image.fromarray(WIDE // 2).save(tmp_path / name)  # scaled by the range of its kind, not by its own
    assert np.abs(grey(tmp_path / name) - GREY / 2).max() <= 1


def test_big_endian_and_12_bits_and_white_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.frombytes("I;16B", (48, 40), WIDE.astype(">u2").tobytes()).save(path)
    with Image.open(path) as image:
        assert image.mode == "I;16B"
    assert (grey(path) == GREY).all()
    Image.fromarray(WIDE).save(path, tiffinfo={262: 0})
    assert (grey(path) == 255 - GREY).all()
    twelve = GREY.astype(int) * 4095 // 255
    pairs = twelve.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    data = packed.astype(np.uint8).tobytes()
    tags = ((256, 48), (257, 40), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 8 + 4), (278, 40), (279, len(data)))
    entries = b"".join(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags)
    path.write_bytes(b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + bytes(4) + data)
    assert np.abs(grey(path) - GREY).max() <= 1


def test_float_grey_is_a_share(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(GREY.astype(np.float32) / 255).save(path)
    assert (grey(path) == GREY).all()
    for values, found in ((GREY.astype(np.float32), "0 to 255"), (GREY / np.float32(255) - 1, "-1 to 0")):
        Image.fromarray(values).save(path)
        with pytest.raises(SampleError, match=rf"x\.tif: expected floats from 0 to 1, this has float32 from {found}"):
            read_picture(path)
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    with pytest.raises(SampleError, match=r"from nan to nan\. Fix: convert"):
        read_picture(path)


def test_32_bit_integers_have_no_known_white(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(SampleError, match=r"expected integers of 8 or 16 bits, this has int32 from 0 to 255"):
        read_picture(tmp_path / "x.tif")


def test_bits_palettes_and_inks(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(GREY > 100).save(path)
    assert set(np.unique(grey(path))) == {0, 255}
    Image.fromarray(COLOURS).quantize(16).save(path)
    assert np.abs(rgb(path) - COLOURS).mean() < 12
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "x.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.mode == "CMYK"
    assert np.abs(rgb(tmp_path / "x.jpg") - COLOURS).mean() < 4


def transparent_palette() -> Image.Image:
    image = Image.fromarray((GREY > 100).astype(np.uint8), "P")
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.info["transparency"] = bytes([0, 255])
    return image


def with_alpha(mode: str) -> Image.Image:
    colour = Image.fromarray(COLOURS if mode == "RGBA" else GREY)
    colour.putalpha(Image.fromarray(((GREY > 100) * 255).astype(np.uint8)))
    assert colour.mode == mode
    return colour


@pytest.mark.parametrize("make", [transparent_palette, lambda: with_alpha("RGBA"), lambda: with_alpha("LA")])
def test_transparent_pixels_show_white_and_opaque_ones_their_colour(
    tmp_path: Path, make: Callable[[], Image.Image]
) -> None:
    make().save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = rgb(tmp_path / "x.png")
    seen = GREY > 100
    assert (image[~seen] == 255).all()
    assert (image[seen] == np.asarray(make().convert("RGBA"))[seen][:, :3]).all()


def test_transparent_colours_of_png(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "x.png", transparency=int(GREY[0, 3]))
    image = grey(tmp_path / "x.png")
    assert (image[:, 3] == 255).all()
    assert (np.delete(image, 3, axis=1) == np.delete(GREY, 3, axis=1)).all()


# what a viewer does to the stored rows and columns, by the EXIF standard (row 0 and column 0 of each orientation)
VIEWS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    0: lambda x: x,  # no orientation
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
    9: lambda x: x,  # no orientation
}


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", VIEWS)
def test_exif_turns_pictures_and_maps(tmp_path: Path, name: str, orientation: int) -> None:
    exif, path, view = Image.Exif(), tmp_path / name, VIEWS[orientation]
    exif[ORIENTATION] = orientation
    options: Any = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(path.suffix, {})
    Image.fromarray(COLOURS).save(path, exif=exif, **options)
    assert np.abs(rgb(path) - view(COLOURS)).mean() < 5
    if path.suffix in (".png", ".tif"):
        Image.fromarray(GREY).save(path, exif=exif)
        assert np.array_equal(read_map(path, "labels", palette=True), view(GREY))
        Image.fromarray(WIDE).save(path, exif=exif)
        assert np.array_equal(grey(path), view(GREY))


def test_the_first_of_several_frames_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)
    for name in ("x.gif", "x.tif", "x.webp", "x.png"):
        options: Any = {"lossless": True} if name.endswith("webp") else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        assert np.abs(rgb(tmp_path / name) - COLOURS).mean() < 12


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)


@pytest.mark.usefixtures("small_limit")
def test_too_many_pixels_are_refused_by_name_and_many_read_without_a_warning(tmp_path: Path) -> None:
    Image.new("L", (50, 41)).save(tmp_path / "bomb.png")
    with pytest.raises(SampleError, match=r"bomb\.png: .*2050 pixels.*2000.*data\.on_error=skip"):
        read_picture(tmp_path / "bomb.png")
    for read in (lambda path: read_map(path, "labels", palette=True), read_depth):
        with pytest.raises(SampleError, match=r"bomb\.png"):
            read(tmp_path / "bomb.png")
    Image.new("L", (40, 40)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(tmp_path / "large.png").size == (40, 40)


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.png").write_text("<svg/>")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, reason in (
        ("empty.jpg", "the file is empty"),
        ("folder.jpg", "Is a directory"),
        ("text.png", "none of the formats that Pillow reads"),
        ("link.png", "No such file"),
        ("loop.png", "symbolic links"),
    ):
        with pytest.raises(SampleError, match=rf"^picture=.*{name}: expected .*{reason}.*\. Fix: replace"):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000", "TGA", "ICO", "DDS"])
def test_damage_of_any_kind_names_the_file(tmp_path: Path, kind: str) -> None:
    """Cut off or overwritten anywhere, a file is read or refused; no other error gets through."""
    buffer = io.BytesIO()
    Image.fromarray(COLOURS[:32, :32]).save(buffer, kind)
    whole, rng, path = buffer.getvalue(), np.random.default_rng(0), tmp_path / "damaged.bin"
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for position in rng.integers(len(data), size=rng.integers(1, 6)):
            data[position] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.5 else data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_picture(path).mode == "RGB"
            except SampleError as error:
                refused += 1
                assert str(path) in str(error)
    assert refused


def test_extensions_are_those_that_pillow_decodes() -> None:
    usual = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
    assert usual <= picture_extensions()
    assert not picture_extensions() & {".mp4", ".mpg", ".pdf", ".svg", ".txt", ".h5", ".eps", ".npy"}


@pytest.mark.parametrize("orientation", [1, 6])
def test_labels_stored_otherwise(tmp_path: Path, orientation: int) -> None:
    """A 16-bit mask, one of bits, one with a palette, in other formats and upper case, beside a turned picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    labels = (GREY // 64 + 1).astype(np.uint8)
    upright = labels if orientation == 1 else np.rot90(labels, -1)
    palette = Image.fromarray(upright, "P")
    palette.putpalette(list(range(15)))
    masks = {
        "0.PNG": Image.fromarray(upright.astype(np.uint16)),
        "1.png": palette,
        "2.TIF": Image.fromarray(upright),
        "3.bmp": Image.fromarray(upright > 2),
    }
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name, mask in masks.items():
            mask.save(tmp_path / "annotations" / split / name)
            Image.fromarray(COLOURS).save(tmp_path / "images" / split / f"{name[0]}.JPG", exif=exif)
    data = ADE20K(tmp_path)
    data.prepare((3, *upright.shape), (0.5,) * 3, (0.5,) * 3)
    found = [target[0].numpy() for _, target in (data.train_images[i] for i in range(4))]
    for target in found[:3]:
        assert np.array_equal(target, upright - 1)
    assert np.array_equal(found[3], np.where(upright > 2, 0, 255))


def test_a_mask_of_what_the_camera_stored_says_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.fromarray(COLOURS).save(tmp_path / "images" / split / "a.jpg", exif=exif)
        Image.fromarray(GREY // 64).save(tmp_path / "annotations" / split / "a.png")
    data = ADE20K(tmp_path)
    data.prepare((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    path = re.escape(str(tmp_path / "annotations/training/a.png"))
    with pytest.raises(SampleError, match=rf"{path}: expected .* 48x40 turned as EXIF says, it has 40x48"):
        data.train_images[0]


def test_depth_of_either_byte_order_and_none_in_colours(tmp_path: Path) -> None:
    path = tmp_path / "d.tif"
    Image.frombytes("I;16B", (48, 40), WIDE.astype(">u2").tobytes()).save(path)
    assert np.allclose(read_depth(path)[0].numpy(), WIDE / 1000)
    Image.fromarray(GREY.astype(np.float32)).save(path)
    with pytest.raises(SampleError, match=r"d\.tif: expected integers of 8 or 16 bits, it has float32"):
        read_depth(path)
    transparent_palette().save(tmp_path / "d.png")
    with pytest.raises(SampleError, match=r"d\.png: expected one channel of values, the file has a palette"):
        read_depth(tmp_path / "d.png")
