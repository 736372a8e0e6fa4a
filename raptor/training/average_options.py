"""Options of the average of the weights: ``callbacks=ema``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from raptor.training.options import CallbackNode
from raptor.utils.options import option, options

if TYPE_CHECKING:
    from pytorch_lightning import Callback


@options
class AverageOptions(CallbackNode):
    """Validate and save the exponential moving average of the weights."""

    identity_name: ClassVar[str] = "ema"

    decay: float = option("Share of the average that a step keeps", default=0.999, ge=0, lt=1)
    warmup: bool = option("Keep at most (1 + n) / (10 + n) at step n, so that the first weights fade", default=True)

    def build(self) -> Callback:
        """Return :class:`raptor.training.averaging.WeightAverage`."""
        from raptor.training.averaging import WeightAverage

        return WeightAverage(self.decay, warmup=self.warmup)
