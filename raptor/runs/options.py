"""Options that every command has: where its runs stand, and what they are called."""

from __future__ import annotations

from typing import Any, ClassVar

from raptor.utils.options import Invalid, option, options

LONGEST = 200  # characters of a folder's name; file systems stop at 255 bytes


@options
class PathsOptions:
    """Roots of everything on disk."""

    runs: str = option("Root of all run folders", default="runs", identity=False)
    data: str = option("Root of data sets", default="data", identity=False)
    stores: str = option("Root of pixel caches and activation stores", default="stores", identity=False)
    imagenet: str = option("ImageNet-1k: holds train/ and val/", default="data/imagenet", identity=False)
    ade20k: str = option("ADE20K: holds images/ and annotations/", default="data/ADEChallengeData2016", identity=False)
    nyuv2: str = option("NYUv2: holds data/nyu2_train.csv", default="data/nyu_data", identity=False)


@options
class RecipeOptions:
    """Size of a training; other nodes refer to it."""

    steps: int = option("Optimiser steps", unit="steps", ge=0, identity=False)
    batch_size: int = option("Images of a step", unit="images", ge=1, identity=False)
    lr: float = option("Learning rate of distillation", gt=0, identity=False)
    checkpoint_every: int = option("Steps between two checkpoints", unit="steps", ge=1, identity=False)
    layer_scale: float | None = option("Initial LayerScale of a block; null leaves it out", identity=False)


@options
class RunOptions:
    """Root of a command's configuration."""

    command: ClassVar[str]

    study: str | int | float = option(
        "Runs of one study stand side by side in <paths.runs>/<study>/", default="default", identity=False
    )
    name: str | int | float | None = option(
        "Folder of the run; null makes one from what it computes", default=None, identity=False
    )
    paths: PathsOptions = option("Roots of everything on disk", default=PathsOptions(), identity=False)
    grid: dict[str, Any] = option(
        "Values that the sweep of an experiment goes through", default={}, identity=False, open=True
    )

    @property
    def about(self) -> dict[str, Any]:
        """What the table of :mod:`raptor.status` shows of the run."""
        return {"task": self.command}

    def __post_init__(self) -> None:
        for key in ("study", "name"):
            value = getattr(self, key)
            if value is not None:
                check_folder_name(key, str(value))


def check_folder_name(key: str, name: str) -> None:
    """Refuse a name that is no single folder.

    Raises
    ------
    Invalid
        If it is empty, too long, hidden, or leads elsewhere, or a terminal cannot show it.
    """
    if not name.isprintable() or name != name.strip() or name[:1] in ("", ".") or {"/", "\\"} & set(name):
        expected = "a name of one folder, without /, without a leading dot and without control characters"
        raise Invalid(key, name, expected, f"choose another {key}, such as {key}=first_try")
    if len(name.encode()) > LONGEST:
        raise Invalid(key, name, f"at most {LONGEST} bytes", f"choose a shorter {key}")
