"""Configurations of a training, as the command line would compose them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
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
