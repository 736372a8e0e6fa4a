"""Mean, spread and interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class MeanCI:
    """A quantity over seeds.

    Attributes
    ----------
    mean
        Arithmetic mean.
    std
        Sample standard deviation (n - 1), NaN for n < 2.
    n
        Number of seeds.
    ci95
        Half width of the 95 % Student interval of the mean, NaN for n < 2.
    """

    mean: float
    std: float
    n: int
    ci95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanCI:
        """MeanCI of values, of which there may be none."""
        n = len(values)
        mean = float(np.mean(values)) if n else nan
        std = float(np.std(values, ddof=1)) if n > 1 else nan
        ci95 = float(stdtrit(n - 1, 0.975)) * std / sqrt(n) if n > 1 else nan
        return cls(mean, std, n, ci95)

    def show(self, digits: int = 1, scale: float = 1.0) -> str:
        """``mean ± std``, without the spread for one seed, a dash for none."""
        if self.n == 0:
            return "—"
        shown = f"{scale * self.mean:.{digits}f}"
        return shown if self.n < 2 else f"{shown} ± {scale * self.std:.{digits}f}"
