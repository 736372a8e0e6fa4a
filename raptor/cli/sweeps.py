"""The jobs of a sweep, without running them."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

import raptor.cli.resolvers  # noqa: F401  # what configurations interpolate with
from raptor.cli.arguments import with_new_keys, without_null_groups
from raptor.errors import ConfigError
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
    """List all jobs that ``-m`` with these overrides runs, in order.

    Parameters
    ----------
    config_name
        Root configuration, without ``.yaml``.
    overrides
        As on the command line; what they leave open is swept as ``hydra.sweeper.params`` says.
    """
    overrides = with_new_keys(without_null_groups(config_name, overrides))
    running = GlobalHydra.instance().is_initialized()  # a command that is running: its search path holds here too
    with nullcontext() if running else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        root = hydra.compose(config_name, [o for o in overrides if not _sweeps(o)], return_hydra_config=True)
        given = {o.split("=")[0].lstrip("+") for o in overrides}
        params = [f"{k}={v}" for k, v in (root.hydra.sweeper.params or {}).items() if k not in given]
        parsed = OverridesParser.create().parse_overrides([*params, *overrides])
        choices = {override.get_key_element(): _choices(override) for override in parsed}  # the last of a key counts
        lists = [list(job) for job in itertools.product(*choices.values())]
        configs = _each(functools.partial(_compose, config_name), lists)
        return [Job(job, config) for job, config in zip(lists, configs, strict=True)]


def print_jobs(config_name: str, overrides: Sequence[str]) -> None:
    """Print every job of a sweep; Hydra's ``-m --cfg job`` would show the first alone."""
    composed = jobs(config_name, overrides)
    for i, job in enumerate(composed, start=1):
        print(f"--- # job {i} of {len(composed)}: {' '.join(job.overrides)}")
        print(OmegaConf.to_yaml(job.config), end="")


def _choices(override: Override) -> list[str]:
    """List the overrides that a swept one stands for, or itself alone.

    Raises
    ------
    ConfigError
        If it is a sweep over an interval, which has no list of jobs.
    """
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        expected = "a list of values such as 1,2,3, or range(1,4)"
        raise ConfigError.of(key, override.get_value_element_as_str(), expected, "list the values")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


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
    """Resolve the configuration of one job of a sweep, while Hydra's own is that of this job.

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
