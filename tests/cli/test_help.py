"""``--help NODE``, and configuration files against the classes that describe them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from raptor.cli import sweeps
from raptor.utils.files import CONFIGS
from raptor.utils.options import is_options, keys, parse


def test_help_prints_the_options_of_a_node(call: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    call("train", "--help", "surrogate.block", "surrogate.block.mlp=gelu")
    shown = capsys.readouterr().out
    assert "surrogate.block.mlp = gelu (swiglu or gelu; default swiglu)" in " ".join(shown.split())
    call("train", "--help", "task", "task=distill")
    shown = " ".join(capsys.readouterr().out.split())
    assert "task.rollout_growth = 0.0 (number from 0 to 1; default 0.0)" in shown
    assert "task=classifier | depth_probe | distill" in shown
    with pytest.raises(SystemExit, match="hats=null: expected a key that exists"):
        call("train", "--help", "hats")


def options_of(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


GROUPS = [
    (group, option)
    for group in ("task", "data", "teacher", "activations", "surrogate", "trainer", "optimizer", "logger", "callbacks")
    for option in options_of(group)
    if (group, option) != ("task", "probe")  # what the probes share; no task by itself
]


def nodes(values: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(values, dict):
        yield path, values
        for key, value in values.items():
            yield from nodes(value, f"{path}.{key}" if path else str(key))


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_key_of_a_class_stands_in_its_file(group: str, option: str) -> None:
    """So that overrides need no ``+``, and ``--cfg job`` shows all there is."""
    GlobalHydra.instance().clear()
    choice = f"{group}@task.{group}={option}" if group == "optimizer" else f"{group}={option}"
    more = {"timm": ["teacher.name=vit_tiny_patch16_224"]}.get(option, [])
    try:
        (job,) = sweeps.jobs("train", [choice, *more])
    except Exception as error:  # a group without a default of its own
        pytest.fail(f"{choice}: {error}")
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(job.config)
    command = importlib.import_module("raptor.train").main
    typed = parse(command.options, values)
    for path, node in nodes(values):
        found: Any = typed
        for part in path.split(".") if path else []:
            found = found.get(part) if isinstance(found, dict) else getattr(found, part, None)
        if path.startswith(group) and is_options(type(found)):
            missing = {key.name for key in keys(type(found))} - node.keys()
            assert not missing, f"{group}/{option}.yaml lacks {path}: {sorted(missing)}"
