"""Small trees in the real layouts of the three data sets, cut from a real photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def _cut(rng: np.random.Generator, which: int, height: int, width: int) -> np.ndarray:
    photo = load_sample_images().images[which]
    top, left = (int(rng.integers(full - part)) for full, part in zip(photo.shape, (height, width), strict=False))
    return photo[top : top + height, left : left + width]


def lay_out(root: Path, train: int = 12, val: int = 4) -> Path:
    """Two classes; labels and depth that follow from brightness."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for which, name in enumerate(("china", "flower")):
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(_cut(rng, which, 80, 96)).save(folder / f"{i}.JPEG")
    for split, count in (("training", train), ("validation", val)):
        pictures, labels = (root / "ADEChallengeData2016" / kind / split for kind in ("images", "annotations"))
        pictures.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(count):
            photo = _cut(rng, i % 2, 70, 90)
            Image.fromarray(photo).save(pictures / f"ADE_{i:08}.jpg")
            Image.fromarray((photo.mean(-1) // 64).astype(np.uint8)).save(labels / f"ADE_{i:08}.png")
    for split, count in (("train", train), ("test", val)):
        rows = []
        for i in range(count):
            photo = _cut(rng, i % 2, 60, 80)
            depth = (photo.mean(-1) / 255).clip(0.02)
            names = [f"data/nyu2_{split}/room_{i % 6}/{i}.{kind}" for kind in ("jpg", "png")]
            (root / "nyu_data" / names[0]).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(root / "nyu_data" / names[0])
            values = (depth * 255).astype(np.uint8) if split == "train" else (depth * 10000).astype(np.uint16)
            Image.fromarray(values).save(root / "nyu_data" / names[1])
            rows.append(",".join(names))
        (root / f"nyu_data/data/nyu2_{split}.csv").write_text("\n".join(rows) + "\n")
    return root
