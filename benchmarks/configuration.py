"""Configurations of a training, as the command line would compose them."""

from __future__ import annotations

import importlib
import sys

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from raptor.train import TrainOptions, main
from raptor.utils.files import CONFIGS


def train_config(*overrides: str) -> DictConfig:
    """Compose the configuration of ``python -m raptor.train`` with these overrides."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def train_options(*overrides: str) -> TrainOptions:
    """Check a composed configuration; see :func:`train_config`."""
    return main.parse(train_config(*overrides))


def command(name: str, *arguments: str) -> None:
    """Run ``python -m raptor.NAME`` in this process.

    Raises
    ------
    RuntimeError
        If it ends with an error, with its message.
    """
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        importlib.import_module(f"raptor.{name}").main()
    except SystemExit as stop:
        raise RuntimeError(f"raptor.{name}: {stop.code}") from stop
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
