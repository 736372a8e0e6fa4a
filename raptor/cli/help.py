"""``python -m raptor.train --help task``: the keys of a node with their types, defaults and meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING
from typing import Any

import hydra
from omegaconf import OmegaConf
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from raptor.errors import show
from raptor.runs.options import RunOptions
from raptor.utils.files import CONFIGS
from raptor.utils.names import unknown_key
from raptor.utils.options import TARGET, is_options, keys, node_classes
from raptor.utils.targets import locate


def show_options(root: type[RunOptions], topics: Sequence[str], overrides: Sequence[str]) -> None:
    """Print the options of nodes of a command's configuration.

    Parameters
    ----------
    root
        Typed root of the command.
    topics
        Names of nodes, such as ``task`` or ``surrogate.block``.
    overrides
        Choices that decide what stands at a node, such as ``task=distill``.

    Raises
    ------
    ConfigError
        If there is no such node.
    """
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose(root.command, list(overrides), return_hydra_config=True)
    console = Console()
    for topic in topics:
        node = OmegaConf.select(config, topic.replace("/", "."))
        cls = class_of(root, topic, node)
        if cls is None:
            names = [key.name for key in keys(root)]
            raise unknown_key(topic, None, names)
        _print(console, topic, cls, node)
        options = sorted(path.stem for path in (CONFIGS / topic).glob("*.yaml"))
        if options:
            console.print(Text(f"{topic}=" + " | ".join(options) + "\n"), soft_wrap=True)


def class_of(root: Any, topic: str, node: Any) -> Any:
    """Find what describes a node: the class of its target, or the class that its parent declares."""
    target = OmegaConf.select(node, TARGET) if OmegaConf.is_dict(node) else None
    if target is not None:
        return locate(target, topic)
    cls: Any = root
    for name in topic.split("."):
        matching = [key for key in keys(cls) if key.name == name] if is_options(cls) else []
        classes = node_classes(matching[0].type) if matching else []
        if not matching:
            return None
        cls = classes[0] if classes else matching[0]
    return cls


def _print(console: Console, topic: str, cls: Any, node: Any) -> None:
    doc = " ".join((getattr(cls, "__doc__", "") or "").strip().split("\n\n")[0].split())
    console.print(Text(f"{topic}: {doc}", style="bold"), "")
    for name, value, facts, meaning in rows_of(topic, cls, node):
        console.print(Text(f"{name} = {value}", style="cyan"), Text(facts, style="dim"))
        if meaning:
            console.print(Padding(Text(meaning), (0, 0, 0, 4)))
    console.print("")


def rows_of(topic: str, cls: Any, node: Any) -> Iterator[tuple[str, str, str, str]]:
    """List the keys of a node: name, value, facts about valid values, meaning."""
    if not is_options(cls):
        for name, value in (node or {}).items() if OmegaConf.is_dict(node) else ():
            yield f"{topic}.{name}", _short(value), "", ""
        return
    for key in keys(cls):
        value = OmegaConf.select(node, key.name) if OmegaConf.is_dict(node) else None
        classes = node_classes(key.type)
        facts = [f"a node: see --help {f'{topic}.{key.name}'.lstrip('.')}" if classes else key.expected]
        if not classes:
            facts.append("required" if key.default is MISSING else f"default {show(key.default)}")
        if not key.identity:
            facts.append("does not make another run")
        meaning = f"{key.doc} [{key.unit}]" if key.unit else key.doc
        yield f"{topic}.{key.name}", _short(value), f"({'; '.join(facts)})", meaning


def _short(value: Any) -> str:
    if OmegaConf.is_dict(value):
        return str(value.get(TARGET, "...")).rpartition(".")[2]
    return textwrap.shorten(show(OmegaConf.to_container(value) if OmegaConf.is_list(value) else value), 40)
