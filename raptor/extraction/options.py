"""Options of ``python -m raptor.extract``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from raptor.data.options import DataNode
from raptor.models.options import TeacherNode
from raptor.runs.options import RecipeOptions, RunOptions
from raptor.utils.files import user_path
from raptor.utils.options import Invalid, option, options

Split = Literal["train", "val"]


@options
class ExtractOptions(RunOptions):
    """Images, or layers of a teacher, to be stored on disk."""

    command: ClassVar[str] = "extract"
    renamed: ClassVar[dict[str, str]] = {"mend": "repair"}

    content: Literal["activations", "pixels"] = option(
        "What is stored: layers of the teacher, or images", default="activations"
    )
    store: str = option("Folder of the store")
    splits: Split | list[Split] | None = option("Splits; null: train for activations, both for pixels", default=None)
    layers: int | list[int] | None = option("Layers of the teacher such as [7,8,9,10]; null is all, 0..L", default=None)
    dtype: Literal["float32", "bfloat16", "float16"] = option("What layers are stored as", default="float32")
    precision: Literal["32-true", "bf16-mixed"] = option("Precision of the teacher", default="32-true")
    shard_size: int = option("Samples of one shard of a new store", default=1024, ge=1)
    workers: int = option("Processes of this call", default=1, ge=1, identity=False)
    part: int = option("This call among several that fill one store at once", default=0, ge=0)
    parts: int = option("Number of such calls", default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = option("Device of the teacher", default="auto")
    verify: bool = option("Only check every byte of what is stored", default=False)
    repair: bool = option("Check, and make damaged shards anew", default=False)
    seed: int = option("Seed of a teacher with random weights", default=0, ge=0, lt=2**32)
    default_store: dict[str, str] = option("Name of the store where none is given", default={}, identity=False)
    teacher: TeacherNode = option("The ViT")
    recipe: RecipeOptions = option("Size of a training; other nodes refer to it", identity=False)
    data: DataNode = option("Images")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part >= self.parts:
            raise Invalid("part", self.part, f"integer in 0..{self.parts - 1} (parts={self.parts})", "correct it")

    @property
    def chosen_splits(self) -> list[str]:
        """Splits that are stored."""
        if self.splits is None:
            return ["train"] if self.content == "activations" else ["train", "val"]
        return [self.splits] if isinstance(self.splits, str) else list(self.splits)

    def folders(self) -> dict[str, Path]:
        """Return the folder of each split: subfolders for pixels, and for layers of any split but training images."""
        root = user_path("store", self.store)
        plain = "train" if self.content == "activations" else None
        return {split: root if split == plain else root / split for split in self.chosen_splits}
