#!/usr/bin/env python3
"""Lay out small data sets in the real layouts of ImageNet-1k, ADE20K and NYUv2: make_miniature.py DIR.

All pictures are real. Objects are cut-out photographs of Debian's package tuxpaint-stamps-default, with exact masks;
they are set before photographs of scikit-learn and scikit-image. Depth is the measured disparity of scikit-image's
stereo picture. Training and validation share no backdrop and no pixel of the stereo picture. The 20 objects, which are
the classes, are the same in both, in other poses, sizes and places.

  sudo apt-get install tuxpaint-stamps-default      (or unpack the package anywhere and name its folder by --stamps)
  pip install scikit-image

Then RAPTOR_DATA=DIR or paths.data=DIR makes data=imagenet (with data.pixels=null), data=ade20k and data=nyuv2 read from
there, and RAPTOR_MINIATURE=DIR those of experiment=table1_mini.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from rich.progress import track
from sklearn.datasets import load_sample_images

from raptor.errors import ConfigError

STAMPS = Path("/usr/share/tuxpaint/stamps")
OBJECTS = {  # class: cut-out
    "basketball": "sports/basketball.png",
    "bus": "vehicles/masstransit/green_korean_bus.png",
    "butterflyfish": "animals/fish/butterflyfish.png",
    "carrot": "food/vegetables/carrot.png",
    "daffodil": "plants/flowers/daffodil.png",
    "eggplant": "food/vegetables/eggplant.png",
    "elephant": "animals/mammals/elephant.png",
    "fire_engine": "vehicles/emergency/firetruck.png",
    "flamingo": "animals/birds/pink_flamingo.png",
    "giraffe": "animals/mammals/giraffe.png",
    "guitar": "hobbies/music/string/guitar_classical.png",
    "kettle": "household/kettle.png",
    "lemon": "food/fruit/lemon.png",
    "lobster": "animals/fish/lobster.png",
    "owl": "animals/birds/owl.png",
    "penguin": "animals/birds/penguin.png",
    "pineapple": "food/fruit/pineapple.png",
    "rose": "plants/flowers/rose.png",
    "rubber_duck": "household/rubberduck.png",
    "trumpet": "hobbies/music/brass/trumpet.png",
}
BACKDROPS = {  # photographs of scikit-image, and china and flower of scikit-learn
    "train": ["astronaut", "brick", "camera", "chelsea", "china", "gravel", "hubble_deep_field", "ihc", "retina"],
    "val": ["coffee", "flower", "grass", "rocket"],
}
SIDE = 96  # pixels of a classification picture
SCENE = 96  # pixels of a segmentation picture
FRAME = (120, 160)  # pixels of a depth picture
BACKGROUND = 1  # label of the backdrop; objects follow, 0 is the soft edge of a cut-out
# of the stereo picture, from scikit-image's documentation: focal length and offset in pixels, baseline in metres
FOCAL, OFFSET, BASELINE = 994.978, 31.086, 0.193001
BANDS = {"train": [slice(0, 185), slice(370, 555)], "test": [slice(185, 370), slice(555, 741)]}  # its columns
COUNTS = {"imagenet": (120, 50), "ade20k": (240, 60), "nyuv2": (192, 48)}  # training, validation; imagenet: of a class


def read_objects(root: Path) -> dict[str, Image.Image]:
    """Read cut-outs by class, cropped to what is visible."""
    if missing := [name for name in OBJECTS.values() if not (root / name).is_file()]:
        fix = "sudo apt-get install tuxpaint-stamps-default, or name the folder of its stamps"
        sys.exit(f"error: {ConfigError.of('--stamps', root, f'a folder with {missing[0]}', fix)}")
    images = {name: Image.open(root / path).convert("RGBA") for name, path in OBJECTS.items()}
    return {name: image.crop(image.getbbox()) for name, image in images.items()}


def read_backdrops() -> dict[str, list[Image.Image]]:
    """Read photographs by split."""
    try:
        import skimage
    except ImportError:
        sys.exit("error: package=scikit-image: expected to be installed. Fix: pip install scikit-image.")
    folder = Path(skimage.__file__).parent / "data"
    photos = dict(zip(("china", "flower"), map(Image.fromarray, load_sample_images().images), strict=True))
    for name in {name for names in BACKDROPS.values() for name in names} - photos.keys():
        photos[name] = Image.open(next(folder.glob(f"{name}.*"))).convert("RGB")
    return {split: [photos[name] for name in names] for split, names in BACKDROPS.items()}


class Scenes:
    """Pictures of one split, drawn at random.

    Parameters
    ----------
    objects
        Cut-outs by class.
    backdrops
        Photographs of this split.
    rng
        Source of chance.
    """

    def __init__(self, objects: dict[str, Image.Image], backdrops: list[Image.Image], rng: np.random.Generator) -> None:
        self.objects, self.backdrops, self.rng = objects, backdrops, rng

    def backdrop(self, side: int) -> Image.Image:
        """Draw a random part of a random photograph."""
        photo = self.backdrops[self.rng.integers(len(self.backdrops))]
        part = int(min(photo.size) * self.rng.uniform(0.4, 0.9))
        left, top = (int(self.rng.integers(full - part + 1)) for full in photo.size)
        return photo.crop((left, top, left + part, top + part)).resize((side, side), Image.Resampling.BICUBIC)

    def place(self, canvas: Image.Image, name: str, low: float, high: float) -> np.ndarray:
        """Paste an object into a picture; return its opacity there, 0..255."""
        stamp = self.objects[name]
        if self.rng.random() < 0.5:
            stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        stamp = stamp.rotate(self.rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
        scale = self.rng.uniform(low, high) * canvas.width / max(stamp.size)
        stamp = stamp.resize([max(4, round(scale * n)) for n in stamp.size], Image.Resampling.LANCZOS)
        bright = ImageEnhance.Brightness(stamp.convert("RGB")).enhance(self.rng.uniform(0.8, 1.2))
        left, top = (
            int(self.rng.integers(max(1, full - n + 1))) for full, n in zip(canvas.size, stamp.size, strict=True)
        )
        canvas.paste(bright, (left, top), stamp.getchannel("A"))
        opacity = Image.new("L", canvas.size)
        opacity.paste(stamp.getchannel("A"), (left, top))
        return np.asarray(opacity)

    def picture(self, name: str) -> Image.Image:
        """Draw one object that nearly fills the picture."""
        canvas = self.backdrop(SIDE)
        self.place(canvas, name, 0.6, 0.95)
        return canvas

    def labelled(self) -> tuple[Image.Image, Image.Image]:
        """Draw several objects, and the label of every pixel."""
        canvas, labels = self.backdrop(SCENE), np.full((SCENE, SCENE), BACKGROUND, np.uint8)
        for _ in range(self.rng.integers(2, 5)):
            number = int(self.rng.integers(len(OBJECTS)))
            opacity = self.place(canvas, list(OBJECTS)[number], 0.35, 0.65)
            labels[opacity > 0] = 0
            labels[opacity > 250] = BACKGROUND + 1 + number
        return canvas, Image.fromarray(labels)


def stereo() -> tuple[np.ndarray, np.ndarray]:
    """Read the stereo picture's left view and its depth in metres, 0 where not measured."""
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    known = np.isfinite(disparity) & (disparity > 0)
    return left, np.where(known, FOCAL * BASELINE / (np.where(known, disparity, 1) + OFFSET), 0)


def frames(count: int, bands: Sequence[slice], rng: np.random.Generator) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Draw random windows of bands of the stereo picture, with their depth in metres."""
    views = [tuple(part[:, band] for part in stereo()) for band in bands]
    for i in range(count):
        picture, depth = views[i % len(views)]
        height = int(rng.integers(90, 135))
        width = height * FRAME[1] // FRAME[0]
        top, left = (
            int(rng.integers(full - part + 1)) for full, part in zip(depth.shape, (height, width), strict=True)
        )
        window = (slice(top, top + height), slice(left, left + width))
        image = Image.fromarray(picture[window]).resize(FRAME[::-1], Image.Resampling.BICUBIC)
        rows, cols = ((np.arange(new) + 0.5) * old // new for new, old in zip(FRAME, (height, width), strict=True))
        yield image, depth[window][rows.astype(int)[:, None], cols.astype(int)[None]]


def write_imagenet(root: Path, scenes: dict[str, Scenes]) -> None:
    """Write ``train/CLASS/*.JPEG`` and ``val/CLASS/*.JPEG``."""
    for split, count in zip(("train", "val"), COUNTS["imagenet"], strict=True):
        for name in track(OBJECTS, f"imagenet {split}", transient=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                scenes[split].picture(name).save(folder / f"{name}_{i:04}.JPEG", quality=92)


def write_ade20k(root: Path, scenes: dict[str, Scenes]) -> None:
    """Write ``images/{training,validation}/*.jpg`` and ``annotations/{training,validation}/*.png``."""
    names = {"train": ("training", "ADE_train"), "val": ("validation", "ADE_val")}
    for (split, (name, stem)), count in zip(names.items(), COUNTS["ade20k"], strict=True):
        pictures, annotations = root / "images" / name, root / "annotations" / name
        pictures.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in track(range(1, count + 1), f"ade20k {split}", transient=True):
            picture, labels = scenes[split].labelled()
            picture.save(pictures / f"{stem}_{i:08}.jpg", quality=92)
            labels.save(annotations / f"{stem}_{i:08}.png")


def write_nyuv2(root: Path, rng: np.random.Generator) -> None:
    """Write ``data/nyu2_{train,test}.csv``; training depth in 8 bits (255 is 10 m), test depth in mm."""
    for split, count in zip(("train", "test"), COUNTS["nyuv2"], strict=True):
        rows = []
        for i, (image, depth) in enumerate(frames(count, BANDS[split], rng), start=1):
            if split == "train":
                names = [f"data/nyu2_train/garage_{i % 20:04}_out/{i}.{kind}" for kind in ("jpg", "png")]
                stored = np.round(depth / 10 * 255).astype(np.uint8)
            else:
                names = [f"data/nyu2_test/{i:05}_{kind}.png" for kind in ("colors", "depth")]
                stored = np.round(depth * 1000).astype(np.uint16)
            (root / names[0]).parent.mkdir(parents=True, exist_ok=True)
            image.save(root / names[0])
            Image.fromarray(stored).save(root / names[1])
            rows.append(",".join(names))
        (root / f"data/nyu2_{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line, write the three trees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to; it must not exist yet")
    parser.add_argument("--stamps", type=Path, default=STAMPS, help="folder of the cut-outs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (%(default)s)")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        fix = "delete it, or choose another folder"
        sys.exit(f"error: {ConfigError.of('folder', arguments.folder, 'a folder that does not exist yet', fix)}")
    objects, backdrops = read_objects(arguments.stamps), read_backdrops()
    rng = np.random.default_rng(arguments.seed)
    scenes = {split: Scenes(objects, photos, rng) for split, photos in backdrops.items()}
    part = arguments.folder.with_name(f".{arguments.folder.name}.part")  # what was cut off must not look whole
    shutil.rmtree(part, ignore_errors=True)
    write_imagenet(part / "imagenet", scenes)
    write_ade20k(part / "ADEChallengeData2016", scenes)
    write_nyuv2(part / "nyu_data", rng)
    part.replace(arguments.folder)
    print(f"{arguments.folder}: imagenet, ADEChallengeData2016, nyu_data; RAPTOR_MINIATURE names it to table1_mini")


if __name__ == "__main__":
    main()
