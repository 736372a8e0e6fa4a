"""Compose one option of a group, beside those that the command line chose."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from raptor.utils.files import CONFIGS


def has_option(group: str, option: str) -> bool:
    """Whether the configuration of this package has an option in a group."""
    return (CONFIGS / group / f"{option}.yaml").is_file()


def compose_option(root: str, group: str, option: str) -> dict[str, Any]:
    """Compose an option of a group as the root configuration takes it.

    Parameters
    ----------
    root
        Root configuration, without ``.yaml``.
    group, option
        As in ``group=option``.

    Returns
    -------
    dict
        Plain values of the node, resolved.
    """
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose(root, [f"{group}={option}"])
        values: Any = OmegaConf.to_container(config[group], resolve=True)
        return dict(values)
