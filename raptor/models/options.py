"""Options of a teacher, and of a surrogate: how depth is cut, and what a block is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raptor.partition.phases import check_order
from raptor.utils.options import Choice, Invalid, keys, option, options

if TYPE_CHECKING:
    from raptor.models.teacher import Teacher

TokenType = Literal["cls", "registers", "patches"]
TIED = "tied"  # label of tied blocks
SIZES = {  # options of timm's ViTs: the least value, and whether height and width can differ
    "img_size": (1, True),
    "patch_size": (1, True),
    "in_chans": (1, False),
    "embed_dim": (1, False),
    "depth": (1, False),
    "num_heads": (1, False),
    "reg_tokens": (0, False),
    "num_classes": (0, False),
}


class TeacherNode(Choice):
    """A teacher: ``teacher=digits_vit|timm|...``, or a user's own by ``_target_``."""

    @abstractmethod
    def build(self, **changes: Any) -> Teacher:
        """Build the teacher, with some keys changed."""


@options
class TimmTeacherOptions(TeacherNode):
    """A ViT of timm, with weights of this project, of timm, of its publisher, or random ones."""

    identity_name: ClassVar[str] = "timm"

    name: str = option("timm's model name")
    options: dict[str, Any] = option("Keyword arguments of timm.create_model", default={}, open=True)
    weights: str | None = option("Run folder or weight file; null: pretrained or random", default=None)
    pretrained: bool = option("Fetch timm's published weights where weights is null", default=False)
    head: str | None = option("Linear head on [cls, mean patch]: run of a probe, or Meta's .pth", default=None)
    linear_head: int = option("Classes of a new head on [cls, mean patch]; 0 keeps the ViT's own", default=0, ge=0)
    mean: list[float] | None = option("Mean of the channels; null takes the model's", default=None)
    std: list[float] | None = option("Deviation of the channels; null takes the model's", default=None)
    position_std: float | None = option(
        "Deviation of random position embeddings; null takes timm's", default=None, ge=0
    )
    drop_path: float | None = option(
        "Stochastic depth at one rate for all blocks; null takes timm's", default=None, ge=0, lt=1
    )

    def __post_init__(self) -> None:
        for name, (least, two) in SIZES.items():
            value = self.options.get(name)
            sides = value if two and isinstance(value, list) and len(value) == 2 else [value]
            if value is not None and not all(type(side) is int and side >= least for side in sides):
                expected = f"integer >= {least}{' or two of them' * two}"
                raise Invalid(f"options.{name}", value, expected, f"correct it, or leave it to {self.name}")
        if self.std is not None and min(self.std, default=0) <= 0:
            raise Invalid("std", self.std, "numbers > 0, one a channel, or null", "correct them")
        channels = self.options.get("in_chans")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if channels is not None and values is not None and len(values) != channels:
                expected = f"{channels} numbers, as teacher.options.in_chans={channels} says, or null"
                raise Invalid(key, values, expected, "correct one of the two")

    def build(self, **changes: Any) -> Teacher:
        """Build the teacher by :func:`raptor.models.pretrained.build_teacher`; weights changed to None are random."""
        from raptor.models.pretrained import build_teacher

        arguments = {key.name: getattr(self, key.name) for key in keys(type(self))} | changes
        return build_teacher(**arguments, published_weights=changes.get("weights", "") is not None)


@options
class BlockOptions:
    """A recurrent block; the width is the teacher's."""

    num_heads: int | None = option("Attention heads; null takes the teacher's", default=None, ge=1)
    mlp: Literal["swiglu", "gelu"] = option("Kind of MLP", default="swiglu")
    mlp_ratio: float = option("Hidden width of the MLP as a multiple of the width", default=4.0, gt=0)
    layer_scale: float | None = option("Initial LayerScale of both branches; null leaves it out", default=1e-5)
    rope: Literal["teacher", "none"] = option(
        "Rotary embedding in attention: the teacher's, where it has one, or none", default="teacher"
    )
    relative_bias: Literal["teacher", "none"] = option(
        "Learned bias of the offset between patches in attention: where the teacher has one, or none", default="teacher"
    )
    depth_scaling: bool = option("Scale branches and output by a learned function of the depth index", default=True)


@options
class RivalOptions:
    """A model in the place of a surrogate, with as many parameters (docs/controls.md)."""

    kind: Literal["untied", "per_layer", "truncated", "pruned", "linear", "interpolated"] = option(
        "A block for each phase, applied once; one for each layer; the teacher's first blocks; those of most "
        "influence; a linear map for the stretch of least influence; the teacher's own layers at the ends of phases"
    )
    layers: int | None = option(
        "Blocks of the teacher that are kept; null: with as many parameters as the tied blocks", default=None, ge=1
    )
    healed: Literal["none", "last", "all"] = option(
        "What is trained: nothing, the last block that is kept, or all blocks", default="all"
    )
    matched: Literal["ends", "all"] = option(
        "Layers that training compares: those that blocks put out, or all, interpolated between", default="ends"
    )
    images: int = option("Training images for influence and linear maps, at most", default=2000, unit="images", ge=1)
    ridge: float = option("Penalty of linear maps, in units of the mean variance of a channel", default=1e-6, ge=0)

    def __post_init__(self) -> None:
        only = {"untied": ("all",), "per_layer": ("all",), "linear": ("none", "all"), "interpolated": ("none",)}
        if self.healed not in (allowed := only.get(self.kind, (self.healed,))):
            raise Invalid("healed", self.healed, f"{' or '.join(allowed)} with kind={self.kind}", "set it so")
        if self.layers is not None and self.kind not in ("truncated", "pruned", "linear"):
            raise Invalid("layers", self.layers, f"null with kind={self.kind}", "set it to null")


@options
class SurrogateOptions:
    """How depth is cut into phases, and what their blocks are."""

    renamed: ClassVar[dict[str, str]] = {"start": "init"}

    k: int | None = option("Number of phases; null takes as many as boundaries make, else 2", default=None, ge=1)
    boundaries: list[int] | None = option(
        "Boundaries such as [7,10]; null takes k phases of phases_file or solver", default=None
    )
    phases: list[list[int]] | Literal["all"] | None = option(
        "Stage 1: phases [[start,end],...], or all of phases_file; null takes those of the boundaries", default=None
    )
    phases_file: str | None = option("A phases.json written by raptor.phases", default=None)
    solver: Literal["exact", "normalised", "greedy"] = option("Solver where there is no file", default="exact")
    partition: Literal["maxcut", "equal", "random"] = option(
        "What cuts depth where boundaries are null: file or solver; equal sizes; another partition drawn by the seed",
        default="maxcut",
    )
    tokens: list[TokenType] = option(
        "Token types of the distance between layers", default=["cls", "patches"], min_length=1
    )
    images: int = option("Training images for the distance", default=2000, unit="images", ge=1)
    init: Literal["random", "middle", "mean", "least_squares"] = option(
        "Initial blocks: random; the teacher's middle block of a phase, or the mean of its blocks; the middle one with "
        "its output maps fitted in closed form",
        default="random",
    )
    init_images: int = option("Training images for init=least_squares, at most", default=256, unit="images", ge=2)
    block: BlockOptions = option("The block", default=BlockOptions())
    rival: RivalOptions | None = option("Model in the surrogate's place; null: tied blocks", default=None)
    label: str = option("Name of this choice in tables and run folders", default=TIED, identity=False)

    def __post_init__(self) -> None:
        check_order(self.boundaries or [])
        if self.boundaries is not None and self.k is not None and len(self.boundaries) + 1 != self.k:
            expected = f"{len(self.boundaries) + 1}, as surrogate.boundaries={self._shown()} make, or null"
            raise Invalid("k", self.k, expected, "set surrogate.k or surrogate.boundaries to null")
        if self.phases == "all" and self.phases_file is None:
            expected = "a list of phases unless surrogate.phases_file is set"
            raise Invalid("phases", self.phases, expected, "set surrogate.phases_file")
        if self.phases == []:
            raise Invalid("phases", self.phases, "one or more phases, or null", "write them like [[0,7],[7,10]]")
        for phase in self.phases if isinstance(self.phases, list) else []:
            if len(phase) != 2 or not 0 <= phase[0] < phase[1]:
                expected = "pairs of layers [start,end] with 0 <= start < end"
                raise Invalid("phases", self.phases, expected, "write them like [[0,7],[7,10]]")

    def _shown(self) -> str:
        return str(self.boundaries).replace(" ", "")

    @property
    def num_phases(self) -> int:
        """Number of phases k: given, or one more than there are boundaries, else 2."""
        return len(self.boundaries) + 1 if self.boundaries is not None else self.k or 2

    @property
    def given(self) -> dict[str, Any]:
        """Keys that cut depth in advance, with their values; empty where the solver cuts."""
        values = {key: getattr(self, key) for key in ("k", "boundaries", "phases", "phases_file")}
        values["rival"] = self.rival and self.rival.kind
        return {key: value for key, value in values.items() if value is not None}
