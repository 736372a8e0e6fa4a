"""The jobs of Table 1 against a list written from the paper's facts, and what a sweep shows without running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from raptor.cli.sweeps import Job, jobs

PHASES = [(0, 7), (7, 10), (0, 4), (4, 7), (10, 12), (7, 12)]  # in the order in which they take the seeds 100..117
BLOCKS = {2: [(0, 7), (7, 12)], 3: [(0, 7), (7, 10), (10, 12)], 4: [(0, 4), (4, 7), (7, 10), (10, 12)]}
SURROGATES = [(k, r, seed + r) for k, seed in ((2, 1001), (3, 1101), (4, 1201)) for r in range(3)]
BACKBONES = ["ViT-S", "ViT-B", *(f"k={k}" for k in (2, 3, 4) for _ in range(3))]


def plain(job: Job) -> Any:
    return OmegaConf.to_container(job.config, resolve=True)


def table1(step: str) -> list[Any]:
    return [plain(job) for job in jobs("train", [f"experiment=table1/{step}"])]


def check_recipe(config: Any) -> None:
    """Both stages: AdamW 3e-4, decay 1e-4, clip 1, batch 64, 312,500 steps, 10,000 of warm-up, cosine to 1e-6."""
    task = config["task"]
    assert task["optimizer"]["_target_"] == "raptor.training.options.AdamWOptions"
    assert (task["optimizer"]["lr"], task["optimizer"]["weight_decay"]) == (3e-4, 1e-4)
    assert (config["trainer"]["gradient_clip_val"], config["data"]["batch_size"]) == (1.0, 64)
    assert config["trainer"]["max_steps"] == 312_500 == 20 * 1_000_000 // 64
    assert round(task["schedule"]["warmup"] * 312_500) == 10_000
    assert task["schedule"]["min_lr"] == 1e-6
    assert config["teacher"]["name"] == "vit_base_patch14_reg4_dinov2.lvd142m"
    assert config["teacher"]["options"]["img_size"] == 224
    assert config["data"]["name"] == "imagenet"
    assert config["data"]["augment"] is None
    block = config["surrogate"]["block"]
    assert (block["mlp"], block["mlp_ratio"], block["layer_scale"], block["depth_scaling"]) == (
        "swiglu",
        4.0,
        1e-5,
        True,
    )


def test_the_18_blocks() -> None:
    configs = table1("blocks")
    expected = {(PHASES[n % 6], 100 + n): f"block-{PHASES[n % 6][0]}-{PHASES[n % 6][1]}-r{n // 6}" for n in range(18)}
    found = {(tuple(c["surrogate"]["phases"][0]), c["seed"]): c["name"] for c in configs}
    assert len(configs) == 18
    assert found == expected
    for config in configs:
        check_recipe(config)
        task = config["task"]
        assert task["name"] == "distill"
        # phases that end before the last layer
        assert task["loss"] == {"_target_": "raptor.tasks.distillation.options.TokenMSEOptions"}
        last = task["last_phase_loss"]
        assert last.pop("_target_") == "raptor.tasks.distillation.options.WeightedTokenMSEOptions"
        assert last == {"cls": 0.34, "registers": 0.33, "patches": 0.33}
        assert (task["teacher_forcing"], task["input_noise"]) == (0.25, 0.0)


def test_the_9_surrogates_find_the_blocks_of_their_replicate() -> None:
    configs = table1("surrogates")
    assert len(configs) == 9
    for config, (k, replicate, seed) in zip(configs, SURROGATES, strict=True):
        check_recipe(config)
        assert config["name"] == f"surrogate-k{k}-r{replicate}"
        assert config["seed"] == seed
        assert config["surrogate"]["boundaries"] == [end for _, end in BLOCKS[k][:-1]]
        folders = [f"runs/table1/block-{a}-{b}-r{replicate}" for a, b in BLOCKS[k]]
        assert config["task"]["blocks"] == folders
        loss = config["task"]["loss"]
        assert (loss["cls"], loss["registers"], loss["patches"]) == (0.45, 0.10, 0.45)
        assert config["task"]["last_phase_loss"] is None
        assert config["task"]["teacher_forcing"] == 0.0
    made = {f"runs/table1/{c['name']}" for c in table1("blocks")}
    assert {folder for c in configs for folder in c["task"]["blocks"]} == made


def test_the_33_probes_and_their_protocols() -> None:
    configs = table1("probes")
    assert len(configs) == 33
    made = {f"runs/table1/surrogate-k{k}-r{r}" for k, r, _ in SURROGATES}
    sets = [("imagenet", 4000), ("ade20k", 5000), ("nyuv2", 6000)]
    expected = [(name, first + i, label) for name, first in sets for i, label in enumerate(BACKBONES)]
    assert [(c["data"]["name"], c["seed"], c["task"]["label"]) for c in configs] == expected
    assert {c["task"]["backbone"] for c in configs} == made | {None}
    assert len({c["name"] for c in configs}) == 33
    protocols = {  # task, image size, epochs, batch, rate, decay, crop
        "imagenet": ("linear_probe", 224, 15, 512, 1e-4, 1e-2, [0.08, 1.0]),
        "ade20k": ("segmentation_probe", 518, 10, 32, 1e-3, 1e-2, [0.5, 1.0]),
        "nyuv2": ("depth_probe", [490, 644], 25, 128, 1e-3, 1e-3, [0.5, 2.0]),
    }
    for config in configs:
        task, data, trainer = config["task"], config["data"], config["trainer"]
        found = (
            task["name"],
            config["teacher"]["options"]["img_size"],
            trainer["max_epochs"],
            data["batch_size"],
            task["optimizer"]["lr"],
            task["optimizer"]["weight_decay"],
            data["augment"]["scale"],
        )
        assert found == protocols[data["name"]]
        assert trainer["max_steps"] is None
        assert trainer["check_val_every_n_epoch"] == 1
        size = "small" if task["label"] == "ViT-S" else "base"
        assert config["teacher"]["name"] == f"vit_{size}_patch14_reg4_dinov2.lvd142m"
        assert f"dinov2_vit{size[0]}14_reg4" in config["teacher"]["head"]
        assert data["pixels"] is None
    assert {c["task"].get("start") for c in configs} == {"head", None}


def test_baselines_get_seeds_of_their_own() -> None:
    paper = {c["seed"] for c in table1("probes")}
    configs = table1("baselines")
    assert len(configs) == 12
    assert len({c["seed"] for c in configs} - paper) == 12
    assert {c["task"]["label"] for c in configs} == {"ViT-S", "ViT-B"}


def test_the_rows_of_the_ablation() -> None:
    found = {}
    for config in (plain(job) for job in jobs("train", ["experiment=ablation/blocks", "grid.replicate=r0"])):
        weighted = config["task"]["last_phase_loss"] is not None
        row = (config["task"]["teacher_forcing"], config["surrogate"]["block"]["depth_scaling"], weighted)
        found[config["name"]] = row
        assert config["surrogate"]["boundaries"] == [7, 10]
    assert found == {
        "blocks-forcing-r0": (float("inf"), False, False),
        "blocks-rollout-r0": (0.25, False, False),
        "blocks-depth_scaling-r0": (0.25, True, False),
        "blocks-cls_weight-r0": (0.25, True, True),
    }
    for job in jobs("train", ["experiment=ablation/assembled"]):
        row = job.config.name.removeprefix("assembled-")
        assert job.config.task.blocks == f"runs/ablation/blocks-{row}"
        assert job.config.surrogate.block.depth_scaling is found[f"blocks-{row[:-1]}0"][1]
        assert job.config.trainer.max_steps == 0


def test_a_sweep_shows_every_job(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raptor.train", "-m", "experiment=table1/blocks", "--cfg", "job"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    configs = list(yaml.safe_load_all(shown))
    assert [c["seed"] for c in configs] == [job.config.seed for job in jobs("train", ["experiment=table1/blocks"])]
    assert shown.count("--- # job ") == 18
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "count"), [(["seed=1,2"], 2), (["seed=1,2", "surrogate.k=range(1,4)"], 6), (["seed=3"], 1)]
)
def test_sweeps_of_the_command_line(overrides: list[str], count: int) -> None:
    assert len(jobs("train", overrides)) == count
