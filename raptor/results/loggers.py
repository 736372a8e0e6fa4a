"""Loggers that follow a run folder over its attempts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def wandb_logger(save_dir: str, **kwargs: Any) -> Any:
    """Weights & Biases under an id that depends on the run folder alone, so that a resumed run continues.

    Parameters
    ----------
    save_dir
        Run folder.
    **kwargs
        Of Lightning's ``WandbLogger``.

    Returns
    -------
    WandbLogger
        With ``resume="allow"``.
    """
    from pytorch_lightning.loggers import WandbLogger

    path = Path(save_dir)
    stable = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return WandbLogger(save_dir=save_dir, id=stable, name=path.name, resume="allow", **kwargs)


def finish(loggers: Iterable[Any], status: str) -> None:
    """Close all loggers in any outcome; without it the next job of a sweep would write into the same wandb run.

    Parameters
    ----------
    loggers
        Lightning loggers.
    status
        ``"success"`` or ``"failed"``.
    """
    for logger in loggers:
        logger.finalize(status)
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish(exit_code=0 if status == "success" else 1)
