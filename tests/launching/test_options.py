"""Options of the launchers, checked before anything is submitted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from raptor.errors import ConfigError
from raptor.launching.options import LocalOptions, SlurmOptions
from raptor.launching.plan import launcher_options
from raptor.utils.files import CONFIGS
from raptor.utils.options import keys


def job(task: str = "finetune", **trainer: Any) -> dict[str, Any]:
    return {"task": {"name": task}, "trainer": {"accelerator": "gpu", "devices": 1} | trainer}


def test_processes_are_those_that_the_trainer_waits_for() -> None:
    assert SlurmOptions().shape(job()) == (1, 1)
    assert SlurmOptions(gpus_per_node=4).shape(job(devices=4, num_nodes=2)) == (2, 4)
    assert SlurmOptions(gpus_per_node="a100:4").shape(job(devices=4)) == (1, 4)
    assert SlurmOptions(gpus_per_node=0).shape({"k": 3}) == (1, 1)  # a command without a trainer
    for options, wrong, message in (
        (
            SlurmOptions(tasks_per_node=2),
            job(),
            "hydra.launcher.tasks_per_node=2: expected the value of trainer.devices, 1",
        ),
        (SlurmOptions(nodes=1), job(num_nodes=2), "hydra.launcher.nodes=1: expected the value of trainer.num_nodes, 2"),
        (SlurmOptions(), job(devices=2), "hydra.launcher.gpus_per_node=1: expected at least trainer.devices, 2"),
        (SlurmOptions(gpus_per_node="a100:1"), job(devices=2), "gpus_per_node=a100:1: expected at least"),
        (SlurmOptions(), job(devices=-1), "trainer.devices=-1: expected integer >= 1"),
        (SlurmOptions(gpus_per_node=2), job("linear_probe", devices=2), "probes run in one process"),
    ):
        with pytest.raises(ConfigError, match=message):
            options.shape(wrong)


def test_idle_gpus_are_noticed() -> None:
    assert SlurmOptions().leaves_gpus_idle(job(accelerator="cpu"))
    assert not SlurmOptions().leaves_gpus_idle(job())
    assert not SlurmOptions().leaves_gpus_idle({"k": 3})
    assert not SlurmOptions(gpus_per_node=0).leaves_gpus_idle(job(accelerator="cpu"))


@pytest.mark.parametrize(
    ("launcher", "values", "message"),
    [
        ("Slurm", {"timeout_min": 0}, "hydra.launcher.timeout_min=0: expected integer >= 1. Fix: "),
        ("Slurm", {"timeout_min": "1h"}, "hydra.launcher.timeout_min=1h: expected integer >= 1. Fix: "),
        ("Slurm", {"max_num_timeout": -1}, "hydra.launcher.max_num_timeout=-1: expected integer >= 0"),
        (
            "Slurm",
            {"partitoin": "gpu"},
            "hydra.launcher.partitoin=gpu: expected a key that exists. Fix: write hydra.launcher.partition",
        ),
        ("Slurm", {"gpus_per_node": "a100"}, "hydra.launcher.gpus_per_node=a100: expected integer >= 0 or TYPE:NUMBER"),
        ("Slurm", {"gpus_per_node": -1}, "hydra.launcher.gpus_per_node=-1: expected integer >= 0 or TYPE:NUMBER"),
        ("Slurm", {"mem_gb": 0}, "hydra.launcher.mem_gb=0: expected integer > 0"),
        ("Slurm", {"setup": "module load cuda"}, "hydra.launcher.setup=module load cuda: expected list of text"),
        ("Local", {"jobs": 0}, "hydra.launcher.jobs=0: expected integer >= 1 or null"),
        ("Local", {"threads": 1.5}, "hydra.launcher.threads=1.5: expected integer >= 1 or null"),
        ("Local", {"gpus": "0,1"}, "hydra.launcher.gpus=0,1: expected list of (integer or text) or null"),
    ],
)
def test_bad_options_are_named(launcher: str, values: dict[str, Any], message: str) -> None:
    node = OmegaConf.create({"_target_": f"hydra_plugins.raptor_launchers.{launcher}", **values})
    with pytest.raises(ConfigError, match=re.escape(message)):
        launcher_options(node)


def test_other_launchers_are_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("_target_=hydra_plugins.other.Launcher: expected slurm or local")):
        launcher_options(OmegaConf.create({"_target_": "hydra_plugins.other.Launcher"}))


@pytest.mark.parametrize(("name", "cls"), [("slurm", SlurmOptions), ("local", LocalOptions)])
def test_the_files_name_each_key_with_its_default(name: str, cls: type) -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"hydra/launcher/{name}.yaml"))
    values = {key: value for key, value in node.items() if key not in ("defaults", "_target_")}
    assert values == {key.name: key.default for key in keys(cls)}
