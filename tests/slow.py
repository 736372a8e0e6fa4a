"""A callback that gives a test time to disturb a training."""

from __future__ import annotations

import time
from typing import Any

from pytorch_lightning import Callback


class SlowSteps(Callback):
    """Sleep after every step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Sleep."""
        time.sleep(self.seconds)
