"""What is asked of SLURM, checked before it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from raptor.errors import ConfigError
from raptor.launching.job import FrozenJob
from raptor.launching.plan import launcher_options
from raptor.launching.slurm import Slurm


def job(task: str = "finetune", **trainer: Any) -> FrozenJob:
    config = OmegaConf.create({"task": {"name": task}, "trainer": {"accelerator": "gpu", "devices": 1} | trainer})
    return FrozenJob.of("train", config, {})


def test_processes_are_those_that_the_trainer_waits_for() -> None:
    assert Slurm().shape(job()) == (1, 1)
    assert Slurm(gpus_per_node=4).shape(job(devices=4, num_nodes=2)) == (2, 4)
    for options, wrong, message in (
        (Slurm(tasks_per_node=2), job(), "hydra.launcher.tasks_per_node=2 must equal trainer.devices=1"),
        (Slurm(nodes=1), job(num_nodes=2), "hydra.launcher.nodes=1 must equal trainer.num_nodes=2"),
        (Slurm(), job(devices=2), "hydra.launcher.gpus_per_node=1: set it to 2"),
        (Slurm(), job(devices=-1), "trainer.devices=-1: say how many"),
        (Slurm(gpus_per_node=2), job("linear_probe", devices=2), "probes run in one process"),
    ):
        with pytest.raises(ConfigError, match=message):
            options.shape(wrong)


def test_idle_gpus_are_noticed() -> None:
    assert Slurm().idle_gpus(job(accelerator="cpu"))
    assert not Slurm().idle_gpus(job())
    assert not Slurm(gpus_per_node=0).idle_gpus(job(accelerator="cpu"))


def test_bad_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"hydra.launcher.timeout_min=0 must be a whole number above 0"):
        Slurm(timeout_min=0)
    with pytest.raises(ConfigError, match=r"unknown key 'hydra.launcher.partitoin'"):
        launcher_options(OmegaConf.create({"_target_": "hydra_plugins.raptor_launchers.Slurm", "partitoin": "gpu"}))
    with pytest.raises(ConfigError, match="choose slurm or local"):
        launcher_options(OmegaConf.create({"_target_": "hydra_plugins.other.Launcher"}))
