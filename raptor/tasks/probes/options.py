"""Options of the probes for classes, labels and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raptor.tasks.context import Context, TaskNode
from raptor.training.options import OptimizerNode, ScheduleNode
from raptor.utils.options import Invalid, option, options

if TYPE_CHECKING:
    from raptor.tasks.probes.base import Probe

Rule = Literal["official", "held_out", "last"]


@options
class ProbeOptions(TaskNode):
    """What all probes share."""

    name: str = option("Name of the task in results", default="probe", identity=False)
    optimizer: OptimizerNode = option("Optimiser")
    schedule: ScheduleNode | None = option("Learning-rate schedule; null keeps the rate", default=None)
    backbone: str | None = option("Run folder of a surrogate or teacher; null probes the teacher", default=None)
    label: str | None = option("Row of the table; null: k=..., teacher or untrained", default=None, identity=False)
    layer: int | None = option("Layer that is probed, after the final norm; null is the last", default=None, ge=0)
    selection: list[Rule] = option(
        "Rules of selection; the first is shown", default=["official", "held_out"], min_length=1
    )
    learning_rates: list[float] | None = option(
        "Rates to choose among in one pass; null takes the optimiser's", default=None
    )
    head_seeds: int = option("Heads that differ in their first weights alone", default=1, ge=1)
    cache: bool = option("Compute features once where images are the same every time", default=True)
    cache_gib: float = option("Most memory for cached features", default=4.0, unit="GiB", ge=0, identity=False)
    flip: bool = option("Average with the mirrored image at validation", default=False)

    def __post_init__(self) -> None:
        if self.learning_rates is not None and (not self.learning_rates or min(self.learning_rates) <= 0):
            raise Invalid("learning_rates", self.learning_rates, "a list of numbers > 0, or null", "correct the rates")
        if "last" in self.selection and len(self.learning_rates or ()) > 1:
            expected = "official or held_out beside several learning_rates: last selects nothing"
            raise Invalid("selection", self.selection, expected, "give one rate, or take last out")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the probe that options alone decide."""
        return {
            "name": self.name,
            "optimizer": self.optimizer.build(),
            "schedule": None if self.schedule is None else self.schedule.build(),
            "selection": self.selection,
            "learning_rates": self.learning_rates,
            "head_seeds": self.head_seeds,
            "layer": self.layer,
            "cache": self.cache,
            "cache_gib": self.cache_gib,
            "flip": self.flip,
        }


@options
class LinearProbeOptions(ProbeOptions):
    """Classes of images, linear on [cls, mean patch]."""

    identity_name: ClassVar[str] = "linear_probe"

    start: Literal["random", "head"] = option(
        "Initial head: random, or the linear head of the backbone", default="random"
    )
    checks: list[Literal["knn", "ridge"]] = option("Probes without a seed to run beside it", default=[])

    def build(self, context: Context) -> Probe:
        """Build :class:`raptor.tasks.probes.linear.LinearProbing`."""
        from raptor.tasks.probes.build import build_probe
        from raptor.tasks.probes.linear import LinearProbing

        arguments = self.arguments() | {"start": self.start, "checks": self.checks}
        return build_probe(LinearProbing, context, self.backbone, self.label, arguments)


@options
class SegmentationProbeOptions(ProbeOptions):
    """A class for every pixel, linear on patch tokens."""

    identity_name: ClassVar[str] = "segmentation_probe"

    loss_stride: int = option("n: the loss counts every n-th row and column of labels, others in turn", default=1, ge=1)
    stride: float = option("Step of sliding windows", default=0.667, unit="share of the window", gt=0, le=1)

    def build(self, context: Context) -> Probe:
        """Build :class:`raptor.tasks.probes.segmentation.SegmentationProbing`."""
        from raptor.tasks.probes.build import build_probe
        from raptor.tasks.probes.segmentation import SegmentationProbing

        arguments = self.arguments() | {"loss_stride": self.loss_stride, "stride": self.stride}
        return build_probe(SegmentationProbing, context, self.backbone, self.label, arguments)


@options
class DepthProbeOptions(ProbeOptions):
    """Depth in metres, linear on [patch, cls]."""

    identity_name: ClassVar[str] = "depth_probe"

    bins: int = option("Bins of depth", default=256, ge=2)
    upsample: int = option("Points a side of a patch at which bins are read off", default=4, ge=1)
    nearest: float = option("Least depth", default=1e-3, unit="m", gt=0)
    farthest: float = option("Greatest depth", default=10.0, unit="m", gt=0)
    padding: Literal["cut", "stretch"] = option(
        "At validation: cut it off the prediction, or stretch the padded prediction over the depth", default="cut"
    )
    unknown_bin: Literal["ignored", "farthest"] = option(
        "Pixels without a depth in the cross-entropy: ignored, or the last bin", default="ignored"
    )
    loss_stride: int = option("n: the loss counts every n-th row and column, others in turn", default=1, ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nearest >= self.farthest:
            raise Invalid("nearest", self.nearest, f"a depth below task.farthest={self.farthest}", "lower it")

    def build(self, context: Context) -> Probe:
        """Build :class:`raptor.tasks.probes.depth.DepthProbing`."""
        from raptor.tasks.probes.build import build_probe
        from raptor.tasks.probes.depth import DepthProbing

        probe_keys = ("bins", "upsample", "nearest", "farthest", "padding", "unknown_bin", "loss_stride")
        arguments = self.arguments() | {key: getattr(self, key) for key in probe_keys}
        return build_probe(DepthProbing, context, self.backbone, self.label, arguments)
