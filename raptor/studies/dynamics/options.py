"""Options of ``python -m raptor.dynamics``, checked before anything is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from raptor.data.options import DataNode
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.options import TeacherNode, TokenType
from raptor.partition.phases import check_boundaries, check_k, check_order
from raptor.runs.options import RecipeOptions, RunOptions
from raptor.studies.dynamics.teacher import SurrogateTeacherOptions
from raptor.utils.options import Invalid, option, options


@options
class OperatorOptions:
    """Dynamic mode decomposition by phase."""

    rank: int = option("Dimensions of the subspace", default=64, ge=1)
    horizon: int | None = option(
        "Steps that an operator is applied for, at most; null goes to the end of its phase", default=None, ge=1
    )
    tokens: list[TokenType] = option(
        "Token types; each takes memory for 2 (2L + 1) and more D x D matrices", default=["cls", "patches"]
    )


@options
class PerturbationOptions:
    """Perturbations of a layer, followed to the end."""

    images: int = option("Images; 0 for none", default=16, ge=0)
    sizes: list[float] = option(
        "Sizes of a perturbation", default=[0.01, 0.1, 0.5], unit="share of a token's norm", min_length=1
    )
    layers: list[int] | None = option(
        "Layers to perturb; null takes four, from the first to 3/4 of depth", default=None
    )

    def __post_init__(self) -> None:
        if min(self.sizes) <= 0:
            raise Invalid("sizes", self.sizes, "numbers > 0, shares of a token's norm", "remove the others")


@options
class JacobianOptions:
    """Spectrum of the Jacobian at the last step of each phase."""

    images: int = option("Images; 0 for none", default=2, ge=0)
    values: int = option("Singular values and eigenvalues", default=4, ge=1)


@options
class MeasureOptions:
    """What is measured of each network."""

    k: int = option("Phases by max-cut of the teacher's distance, drawn in every figure", default=3, ge=1)
    boundaries: list[int] | None = option("Boundaries such as [7,10], instead of k", default=None)
    tokens: list[TokenType] = option("Token types of the distance", default=["cls", "patches"], min_length=1)
    shown: int = option("Images in projections", default=100, ge=3)
    ranks: bool = option("Decompose the updates of every image; takes most of the time of the curves", default=True)
    precision: Literal[32, 64] = option("Bits of the networks' numbers; measures are always taken in 64", default=32)
    operators: OperatorOptions = option("Dynamic mode decomposition", default=OperatorOptions())
    perturbation: PerturbationOptions = option("Perturbations", default=PerturbationOptions())
    jacobian: JacobianOptions = option("Jacobian", default=JacobianOptions())
    seed: int = option("Seed of perturbations and of the vectors that iterations begin with", default=0, ge=0, lt=2**32)

    def for_network(self, model: Backbone) -> Self:
        """Return what is measured of a network, without token types that it has not; checked before anything is run.

        Raises
        ------
        ConfigError
            Naming the key that does not fit.
        """
        L, layers = model.num_layers, self.perturbation.layers
        if self.boundaries is None:
            check_k(self.k, L, "k")
        else:
            check_boundaries(self.boundaries, L, "boundaries")
        if layers is not None and not all(0 <= layer < L for layer in layers):
            expected = f"layers within 0..{L - 1}: the last layer has none after it"
            raise ConfigError.of("perturbation.layers", layers, expected, "correct those outside")
        tokens: Any = list(model.layout.present(self.tokens, "tokens"))
        of_operators: Any = list(model.layout.present(self.operators.tokens, "operators.tokens"))
        return replace(self, tokens=tokens, operators=replace(self.operators, tokens=of_operators))


@options
class DynamicsOptions(RunOptions, MeasureOptions):
    """How tokens move through the depth of a teacher, of its surrogates, and of an untrained network."""

    command: ClassVar[str] = "dynamics"

    surrogates: list[str] = option("Run folders of stage 2, to be measured beside their teacher", default=[])
    untrained: bool = option("Measure a network of the same shape with random weights too", default=True)
    split: Literal["val", "train"] = option("Images", default="val")
    images: int | None = option(
        "Images at most; half fits class directions and operators, half evaluates", default=1000, ge=4
    )
    batch_size: int = option("Images at a time", default=16, unit="images", ge=1)
    teacher: TeacherNode = option("The ViT")
    recipe: RecipeOptions = option("Size of a training; other nodes refer to it", identity=False)
    data: DataNode = option("Images")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.boundaries or [], "boundaries")
        if isinstance(self.teacher, SurrogateTeacherOptions):
            self.teacher = self.teacher.resolve()  # identities and reports name the teacher itself
