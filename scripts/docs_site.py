"""Hooks of mkdocs: pages made from code, and links that lead out of docs/.

``mkdocs build`` loads this file (see ``mkdocs.yml``). It makes one page of all options from the typed classes and one
page for each room of the package from its docstrings, and turns links to source files into links to those pages.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from omegaconf import DictConfig, OmegaConf

from raptor.cli.help import class_of, rows_of
from raptor.train import TrainOptions
from raptor.utils.files import CONFIGS
from raptor.utils.options import TARGET, is_options, keys, node_classes

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "raptor"
GROUPS = ("activations", "callbacks", "data", "logger", "recipe", "surrogate", "task", "teacher", "trainer")
OUTWARD = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>(?:\.\./)+[\w./-]+?)(?P<anchor>#[\w-]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from code."""
    pages = {"reference/options.md": options_page(), "reference/api.md": api_index()}
    pages |= {f"reference/api/{room}.md": api_page(room) for room in rooms()}
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ into links to the pages of the API, or into code."""
    here = posixpath.dirname(page.file.src_uri)

    def replaced(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, link["path"]))
        if target.startswith("docs/"):
            return link[0]
        room = room_of(target)
        return (
            link["text"]
            if room is None
            else f"[{link['text']}]({posixpath.relpath(f'reference/api/{room}.md', here or '.')})"
        )

    return OUTWARD.sub(replaced, markdown)


def rooms() -> list[str]:
    """List the rooms of the package, and ``commands`` for the files at its root."""
    return ["commands", *sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))]


def room_of(path: str) -> str | None:
    """Find the room that a path of the repository lies in."""
    parts = path.split("/")
    if parts[0] != "raptor" or len(parts) < 2:
        return None
    if len(parts) == 2 and parts[1].endswith(".py"):
        return "commands"
    return parts[1] if parts[1] in rooms() else None


def modules_of(room: str) -> Iterator[str]:
    """List the modules of a room by their import paths."""
    found = PACKAGE.glob("*.py") if room == "commands" else (PACKAGE / room).rglob("*.py")
    for path in sorted(found):
        if path.name not in ("__init__.py", "__main__.py") or (path.parent == PACKAGE and path.name == "__init__.py"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def api_page(room: str) -> str:
    """Write the page of a room: a heading for each module, filled by mkdocstrings."""
    title = "Commands" if room == "commands" else f"raptor.{room}"
    return f"# {title}\n\n" + "\n\n".join(f"::: {name}" for name in modules_of(room)) + "\n"


def api_index() -> str:
    """List the rooms with the first line of their docstrings."""
    lines = [f"- [{room}](api/{room}.md): {_about(room)}" for room in rooms()]
    return "# API\n\nWritten from the docstrings.\n\n" + "\n".join(lines) + "\n"


def _about(room: str) -> str:
    path = PACKAGE / ("__init__.py" if room == "commands" else f"{room}/__init__.py")
    found = re.match(r'"""(.+?)(?:"""|\n)', path.read_text(encoding="utf-8"))
    return found[1] if found else ""


def options_page() -> str:
    """Write the page of all options of ``raptor train``, from the typed classes.

    Each folder of ``configs/`` that the command composes is a section. Its options are those of the classes behind the
    choices; a class that several choices share is listed once.
    """
    text = [
        "# Options",
        "Written from the typed classes; `raptor train --help NODE` prints the same. A key marked *watches* does not"
        " make another run: a finished run stays finished when it changes.",
        "## root",
        *_table("", TrainOptions),
    ]
    for group in sorted(path.name for path in CONFIGS.iterdir() if path.name in GROUPS):
        text += [f"## {group}", _choices(group)]
        seen = set()
        for choice in _names(group):
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                config = hydra.compose("train", [f"{group}={choice}"], return_hydra_config=True)
            for name, node in _nodes(group, config):
                for topic, cls in _classes(name, class_of(TrainOptions, name, node)):
                    if cls not in seen:
                        seen.add(cls)
                        doc = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
                        text += [f"### {topic}: {cls.__name__.removesuffix('Options')}", doc, *_table(topic, cls)]
    return "\n\n".join(text) + "\n"


def _groups() -> set[str]:
    return {
        "task",
        "teacher",
        "surrogate",
        "data",
        "activations",
        "trainer",
        "logger",
        "callbacks",
        "optimizer",
        "recipe",
    }


def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _choices(group: str) -> str:
    """List the files of a group with the first line of their comments."""
    lines = []
    for name in _names(group):
        comment = re.match(r"#+ *(.+)", (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
        lines.append(f"- `{group}={name}`" + (f": {comment[1]}" if comment else ""))
    return "\n".join(lines)


def _nodes(group: str, config: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """List the nodes that a group fills: itself, or what stands under it by name."""
    node = config.get(group)
    yield group, node
    values = OmegaConf.to_container(node, resolve=False)
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict) and TARGET in value:
            yield f"{group}.{name!s}", OmegaConf.create(value)


def _classes(topic: str, cls: Any) -> Iterator[tuple[str, type]]:
    """List a class of options and those of the nodes below it, each with its place."""
    if is_options(cls):
        yield topic, cls
        for key in keys(cls):
            for below in node_classes(key.type):
                yield from _classes(f"{topic}.{key.name}", below)


def _table(topic: str, cls: Any) -> list[str]:
    rows = [
        f"| `{name.lstrip('.')}` | {_cell(facts.strip('()'))} | {_cell(meaning)} |"
        for name, _, facts, meaning in rows_of(topic, cls, None)
        if facts
    ]
    return ["\n".join(["| key | value | meaning |", "|---|---|---|", *rows])] if rows else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("does not make another run", "*watches*")
