"""Keys of Lightning's trainer that no run takes: what stands in their place, and the fix."""

from __future__ import annotations

LENGTH = "no least length: a training ends at trainer.max_steps or trainer.max_epochs, or by a callback of yours"
ONE_LOOP = "no such loop: the final evaluation is a validation"
DRAWN = "no such choice: batches are a function of seed and step, and one epoch is the whole training"
OTHERWISE = "no such key: raptor sets it by itself"
REMOVE = "remove it"

REFUSED: dict[str, tuple[str, str]] = {
    "min_steps": (LENGTH, "set trainer.max_steps, or the patience of that callback"),
    "min_epochs": (LENGTH, "set trainer.max_epochs, or the patience of that callback"),
    "limit_test_batches": (ONE_LOOP, "set trainer.limit_val_batches"),
    "limit_predict_batches": (ONE_LOOP, "set trainer.limit_val_batches"),
    "reload_dataloaders_every_n_epochs": (DRAWN, REMOVE),
    "use_distributed_sampler": (DRAWN, "remove it; data.batch_size is that of all processes together"),
    "logger": ("no such key: loggers are a group", "write logger=csv, logger=tensorboard, logger=wandb or logger=null"),
    "callbacks": ("no such key: callbacks are a group", "write +callbacks.NAME._target_=..."),
    "enable_checkpointing": (
        "no such key: every run keeps a checkpoint, from which the same command continues",
        "set callbacks.checkpoint.every_n_steps above trainer.max_steps, or write ~callbacks.checkpoint",
    ),
    "default_root_dir": ("no such key: the run folder is paths.runs/study/name", "set paths.runs, study or name"),
    "barebones": (
        "no such key: a run keeps its checkpoint, its status and its curves",
        "write logger=null and trainer.enable_progress_bar=false",
    ),
    "plugins": (OTHERWISE, REMOVE),
    "enable_autolog_hparams": (f"{OTHERWISE}, loggers get the flat configuration", REMOVE),
    "sync_batchnorm": ("no such key: neither teachers nor blocks have batch normalisation", REMOVE),
    "model_registry": (OTHERWISE, REMOVE),
}
