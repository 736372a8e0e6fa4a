"""The jobs of a sweep, without running them."""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from raptor.utils.files import CONFIGS

FEW = 8  # jobs that are composed one after the other


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Parameters
    ----------
    overrides
        What the command line of the job alone would say.
    config
        Its configuration, resolved.
    """

    overrides: list[str]
    config: DictConfig


def jobs(config_name: str, overrides: Sequence[str]) -> list[Job]:
    """All jobs that ``-m`` with these overrides runs, in order.

    Parameters
    ----------
    config_name
        Root configuration, without ``.yaml``.
    overrides
        As on the command line; what they leave open is swept as ``hydra.sweeper.params`` says.
    """
    running = GlobalHydra.instance().is_initialized()  # a command that asks: its search path holds here too
    with nullcontext() if running else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        root = hydra.compose(config_name, [o for o in overrides if not _sweeps(o)], return_hydra_config=True)
        given = {o.split("=")[0] for o in overrides}
        params = [f"{k}={v}" for k, v in (root.hydra.sweeper.params or {}).items() if k not in given]
        parsed = OverridesParser.create().parse_overrides([*params, *overrides])
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        lists = [list(job) for batch in batches for job in batch]
        configs = _each(functools.partial(_compose, config_name), lists)
        return [Job(job, config) for job, config in zip(lists, configs, strict=True)]


def shown(config_name: str) -> bool:
    """Print every job of a sweep, if the command line says ``-m --cfg job``; Hydra would show the first alone."""
    arguments = get_args_parser().parse_args()
    if not (arguments.multirun and arguments.cfg == "job") or arguments.config_dir or arguments.package:
        return False
    found = jobs(config_name, arguments.overrides)
    for i, job in enumerate(found, start=1):
        print(f"--- # job {i} of {len(found)}: {' '.join(job.overrides)}")
        print(OmegaConf.to_yaml(job.config), end="")
    return True


def _sweeps(override: str) -> bool:
    return OverridesParser.create().parse_override(override).is_sweep_override()


def _each(compose: Callable[[list[str]], DictConfig], lists: list[list[str]]) -> list[DictConfig]:
    """Compose side by side where that pays: a job takes a fifth of a second, and a table has seventy."""
    if len(lists) < FEW or sys.platform != "linux":
        return [compose(job) for job in lists]
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:  # which inherits Hydra's state
        return list(pool.map(compose, lists, chunksize=4))


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    with as_job(hydra.compose(config_name, overrides, return_hydra_config=True)) as resolved:
        return resolved


@contextmanager
def as_job(config: DictConfig, number: int = 0) -> Iterator[DictConfig]:
    """The configuration of one job of a sweep, resolved, while Hydra's own is that of this job.

    Parameters
    ----------
    config
        With the node ``hydra``.
    number
        Of the job in its sweep.
    """
    instance = HydraConfig.instance()
    earlier = instance.cfg
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    instance.set_config(config)
    try:
        values: Any = OmegaConf.to_container(config, resolve=False)
        resolved: Any = OmegaConf.create({key: value for key, value in values.items() if key != "hydra"})
        OmegaConf.resolve(resolved)
        yield resolved
    finally:
        instance.cfg = earlier
