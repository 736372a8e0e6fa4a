"""Every probe of Table 1 beside the published recipe, number by number, and the depth probe to the letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.plugins.precision import MixedPrecision

from raptor.cli.sweeps import jobs
from raptor.errors import ConfigError
from raptor.models.heads import DepthProbe
from raptor.tasks.probes.depth import DepthProbing
from tests.tasks.probes.probing import ADAM, Known, greys, oracle
from tests.tasks.probes.test_dense_probes import Oblong, plates

WARMUP = {"warmup_steps": 100, "start": 0.01, "end": 0.01}  # linear from 1 %, cosine to 1 %
# the recipe of the published code; float32 where it has no autocast, for which we take bfloat16 on purpose
RECIPE: dict[str, dict[str, Any]] = {
    "imagenet": {
        "lr": 1e-4,
        "weight_decay": 1e-2,
        "clip": 1.0,
        "schedule": WARMUP,
        "batch": 512,
        "epochs": 15,
        "precision": "bf16-mixed",
    },
    "ade20k": {
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "clip": 1.0,
        "schedule": WARMUP,
        "batch": 32,
        "epochs": 10,
        "precision": "bf16-mixed",
    },
    "nyuv2": {
        "lr": 1e-3,
        "weight_decay": 1e-3,
        "clip": None,
        "schedule": None,
        "batch": 128,
        "epochs": 25,
        "precision": "16-mixed",
    },
}


def recipe_of(config: Any) -> dict[str, Any]:
    task, trainer = config["task"], config["trainer"]
    schedule = task["schedule"]
    if schedule is not None:
        assert "warmup_cosine_shares" in schedule["_target_"] or "WarmupCosineShares" in schedule["_target_"]
        schedule = WARMUP | {key: value for key, value in schedule.items() if not key.startswith("_")}
    assert task["optimizer"]["_target_"].endswith(("torch.optim.AdamW", "AdamWOptions"))
    assert (trainer["max_steps"], trainer["accumulate_grad_batches"]) == (None, 1)
    return {
        "lr": task["optimizer"]["lr"],
        "weight_decay": task["optimizer"]["weight_decay"],
        "clip": trainer["gradient_clip_val"],
        "schedule": schedule,
        "batch": config["data"]["batch_size"],
        "epochs": trainer["max_epochs"],
        "precision": trainer["precision"],
    }


def test_all_33_probes_have_the_recipes_numbers() -> None:
    configs = [OmegaConf.to_container(job.config, resolve=True) for job in jobs("train", ["experiment=table1/probes"])]
    found = [(config["data"]["name"], recipe_of(config)) for config in configs]  # type: ignore[index, call-overload]
    assert found == [(name, recipe) for name, recipe in RECIPE.items() for _ in range(11)]


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [([], "32-true"), (["trainer=gpu_bf16"], "16-mixed"), (["trainer.precision=bf16-mixed"], "bf16-mixed")],
)
def test_depth_takes_float16_on_a_gpu_alone(overrides: list[str], precision: str) -> None:
    for protocol in ("nyuv2", "nyuv2_published", "mini_nyuv2"):
        (job,) = jobs("train", [f"protocol={protocol}", *overrides])
        assert job.config.trainer.precision == precision


def test_the_published_depth_protocol_differs_in_two_keys_alone() -> None:
    ours, published = (
        OmegaConf.to_container(jobs("train", [f"protocol={p}"])[0].config, resolve=True)
        for p in ("nyuv2", "nyuv2_published")
    )
    task = published["task"]  # type: ignore[index, call-overload]
    assert (task.pop("padding"), task.pop("unknown_bin")) == ("stretch", "farthest")
    del ours["task"]["padding"], ours["task"]["unknown_bin"]  # type: ignore[index, call-overload]
    assert ours == published


def depth_task(**options: Any) -> DepthProbing:
    images, depth = plates(4)
    data = greys("depth", depth, images, 0)
    return DepthProbing(oracle(4), data, {}, name="d", seed=0, bins=4, nearest=0.0, farthest=4.0, **{**ADAM, **options})


def test_pixels_without_a_depth_are_the_farthest_bin_if_asked() -> None:
    raw = torch.zeros(1, 2, 16, 4)
    raw[..., 3] = 2.0
    depth = torch.zeros(2, 1, 16, 16)  # none at all: the scale-invariant loss is 0
    assert depth_task().losses(raw, depth).item() == 0.0
    last = -torch.tensor([0.0, 0.0, 0.0, 2.0]).log_softmax(0)[3]
    assert depth_task(unknown_bin="farthest").losses(raw, depth).item() == pytest.approx(float(last), rel=1e-5)


def test_the_padded_prediction_is_stretched_if_asked() -> None:
    sure = torch.tensor([[0, 1, 2], [3, 2, 1]])
    raw = 40.0 * torch.nn.functional.one_hot(sure.flatten(), 4)[None].float()
    head, found = DepthProbe(8, 4, 0.0, 4.0), {}
    for padding in ("cut", "stretch"):
        task = depth_task(padding=padding)
        task.backbone = Oblong(4, lambda grey: grey)
        found[padding] = task.predict(head, raw, torch.zeros(1, 1, 6, 10))
    finer = task._finer(raw)
    expected = torch.nn.functional.interpolate(head.depth(finer)[:, None], (6, 10), mode="bilinear")
    torch.testing.assert_close(found["stretch"], expected)
    assert not torch.allclose(found["cut"], found["stretch"], atol=0.1)
    # the padding is kept out of a cut prediction, and in a stretched one every pixel comes from nearer the edge
    whole = depth_task(padding="cut")
    whole.backbone = task.backbone
    torch.testing.assert_close(whole.predict(head, raw, torch.zeros(1, 1, 8, 12))[..., 1:7, 1:11], found["cut"])


@pytest.mark.parametrize("key", ["padding", "unknown_bin"])
def test_other_words_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"task\.{key}=fill: expected"):
        depth_task(**{key: "fill"})


def test_float16_with_scaled_gradients_follows_float32(tmp_path: Path) -> None:
    """The recipe's autocast and scaler, here on the CPU, which torch can do and Lightning does not choose."""
    images, depth = plates()
    found = []
    for plugin in (None, MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))):
        data = greys("depth", depth, images, 0)
        tokens = torch.nn.Linear(1, 4)
        torch.nn.init.constant_(tokens.weight, 0.5)
        torch.nn.init.constant_(tokens.bias, 0.1)
        backbone = Known(4, lambda grey, tokens=tokens: tokens(grey[..., None]))
        task = DepthProbing(backbone, data, {}, name="d", seed=0, bins=4, nearest=0.0, farthest=8.0, **ADAM)
        trainer = pl.Trainer(
            max_steps=30,
            max_epochs=-1,
            accelerator="cpu",
            plugins=[plugin] if plugin else [],
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(task, datamodule=data)
        found.append(torch.cat([p.detach().flatten() for p in task.heads.parameters()]))
    assert found[0].abs().max() > 0.1
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.02)
    assert not torch.equal(found[1], found[0])
