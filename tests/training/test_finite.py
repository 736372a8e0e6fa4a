"""Runs whose loss or metrics are not finite end as failed, name the step and the key, and save nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from raptor.errors import NonFiniteError
from raptor.tasks.probes.depth import DepthProbing
from raptor.tasks.probes.segmentation import SegmentationProbing
from raptor.training.finite import FiniteNumbers, non_finite
from tests.tasks.probes.probing import ADAM, fit, greys, oracle
from tests.tasks.probes.test_dense_probes import plates, stripes


class Scripted(pl.LightningModule):
    """Losses and a metric as written down."""

    def __init__(self, losses: list[float], metric: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.losses, self.metric = losses, metric

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.losses[batch_idx] + 0 * self.weight
        self.log("train/0-4/loss", loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/r2", self.metric)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Saves(pl.Callback):
    """Saves after given steps."""

    def __init__(self, steps: list[int], folder: Path) -> None:
        self.steps, self.folder = steps, folder

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def run(task: Scripted, tmp_path: Path, every: int = 4, saves: tuple[int, ...] = (), **options: Any) -> pl.Trainer:
    loader = DataLoader(TensorDataset(torch.zeros(12)), batch_size=1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        log_every_n_steps=every,
        callbacks=[FiniteNumbers(), Saves(list(saves), tmp_path)],
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(task, loader, loader)
    return trainer


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_step_with_a_bad_loss_is_named_at_the_next_look(tmp_path: Path, bad: float) -> None:
    losses = [1.0, 1.0, bad, *[1.0] * 9]  # it comes back, which hides nothing
    task = Scripted(losses)
    with pytest.raises(NonFiniteError, match=r"train/loss=nan: expected a finite loss .*began at step 3\. Fix: lower"):
        run(task, tmp_path, limit_val_batches=0)
    assert task.trainer.global_step == 4  # where a row is logged
    with pytest.raises(NonFiniteError, match=rf"train/0-4/loss={bad}: .*began at step 4"):
        run(Scripted([1.0, 1.0, 1.0, *[bad] * 9]), tmp_path, limit_val_batches=0)
    assert run(Scripted([1.0] * 12), tmp_path).global_step == 12


def test_nothing_is_saved_or_validated_after_a_bad_loss(tmp_path: Path) -> None:
    losses = [1.0] * 6 + [float("nan")] * 6
    with pytest.raises(NonFiniteError, match="began at step 7"):
        run(Scripted(losses), tmp_path, every=100, saves=(5, 8))
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["5.ckpt"]
    with pytest.raises(NonFiniteError, match="began at step 7"):  # before the validation after the last step
        run(Scripted(losses, metric=float("nan")), tmp_path, every=100)
    with pytest.raises(NonFiniteError, match="began at step 12"):  # after the last step, where nothing follows
        run(Scripted([1.0] * 11 + [float("nan")]), tmp_path, every=100, limit_val_batches=0)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_bad_metric_is_named(tmp_path: Path, bad: float) -> None:
    with pytest.raises(NonFiniteError, match=rf"val/r2={bad}: expected a finite number; it is none after step 12"):
        run(Scripted([1.0] * 12, bad), tmp_path)
    assert non_finite([("a", 1.0), ("b", bad), ("c", torch.tensor(bad)), ("d", torch.tensor(2))]) == ["b", "c"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.gpu
def test_looking_waits_for_no_gpu_between_two_rows() -> None:
    class Looked(pl.Trainer):
        global_step = 3

    looks = FiniteNumbers()
    trainer = Looked(log_every_n_steps=50, logger=False)
    looks.on_train_batch_end(trainer, None, {"loss": torch.ones((), device="cuda")})  # type: ignore[arg-type]
    torch.cuda.set_sync_debug_mode("error")
    try:
        looks.on_train_batch_end(trainer, None, {"loss": torch.ones((), device="cuda")})  # type: ignore[arg-type]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_probe_without_a_target_that_counts_says_so() -> None:
    images, depth = plates(8)
    depth = depth.clone()
    depth[4:] = 0.0  # of the validation images
    data = greys("depth", depth, images, 0)
    options: dict[str, Any] = {"bins": 4, "nearest": 0.0, "farthest": 8.0, "selection": ["official"]}
    task = DepthProbing(oracle(4), data, {}, name="d", seed=0, **options, **ADAM)
    with pytest.raises(NonFiniteError, match=r"val/rmse=nan: expected a number; data=greys has no depth target that c"):
        fit(task, data, 2)
    images, labels = stripes(8)
    labels[4:] = 255
    data = greys("labels", labels, images, 4)
    task = SegmentationProbing(oracle(4), data, {}, name="s", seed=0, selection=["official"], **ADAM)  # type: ignore[assignment]
    with pytest.raises(NonFiniteError, match=r"val/miou=nan: .*no labels target that counts in split val"):
        fit(task, data, 2)


def test_a_diverged_run_is_failed_and_stays_so(call: Callable[..., None], tmp_path: Path) -> None:
    for attempt in (1, 2):
        with pytest.raises(SystemExit, match=r"train/loss=nan: .*began at step 2"):
            call(
                "train",
                "trainer.max_steps=12",
                "trainer.enable_progress_bar=false",
                "trainer.gradient_clip_val=null",
                "trainer.log_every_n_steps=2",
                "task.optimizer.lr=1e8",
                "data.batch_size=8",
                "name=d",
            )
        folder = tmp_path / "runs" / "default" / "d"
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["attempt"]) == ("failed", attempt)
        assert "NonFiniteError: train/loss=nan" in status["error"]
        assert not (folder / "result.json").exists()
        assert not list(folder.glob("checkpoints/*"))
