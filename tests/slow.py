"""A callback that gives a test time to disturb a training."""

from __future__ import annotations

import os
import time
from typing import Any

from pytorch_lightning import Callback


class SlowSteps(Callback):
    """Sleep after every step, as long as the environment says: how fast a training runs is no part of its identity."""

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("SLOW_STEPS", 0))

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Sleep."""
        time.sleep(self.seconds)
