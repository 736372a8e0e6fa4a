"""README and docs: links lead somewhere, commands work in bash and zsh, and their keys and values are valid."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from raptor.cli import sweeps
from raptor.errors import ConfigError
from raptor.utils.files import CONFIGS

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = ("train", "phases", "extract", "dynamics", "report", "reproduce")


def shell_lines(text: str) -> Iterator[str]:
    """Commands of the bash blocks of a page, continued lines joined, comments left out."""
    for block in re.findall(r"^ *```(?:bash|sh|zsh)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if line.strip() and not line.strip().startswith("#"):
                yield re.sub(r"\s{2,}#.*|\s# .*", "", line.strip())


def help_lines() -> Iterator[tuple[str, str]]:
    """Commands that ``--help`` shows, by the file that has them."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        header = yaml.safe_load(path.read_text()).get("hydra", {}).get("help", {}).get("header", "")
        for line in re.sub(r"\\\n\s*", " ", header).splitlines()[1:]:
            if line.strip().startswith("python -m raptor."):
                yield path.name, re.split(r"\s{2,}", line.strip())[0]


def documented() -> list[tuple[str, str]]:
    """All commands with the file that they stand in."""
    pages = [(str(path.relative_to(ROOT)), line) for path in PAGES for line in shell_lines(path.read_text())]
    return [*pages, *help_lines()]


def unquoted(line: str) -> str:
    """What a shell may expand: the line without its quoted parts."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\\.", "", line)


def composed() -> list[tuple[str, str, list[str]]]:
    """Commands of this package with their overrides: page, command, words behind it."""
    found = []
    for page, line in documented():
        words = shlex.split(re.sub(r"[;&|>].*", "", expanded(page, line)))
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words[:2] == ["python", "-m"] and words[2:3] and words[2].removeprefix("raptor.") in COMMANDS:
            found.append((page, words[2].removeprefix("raptor."), words[3:]))
        elif words[:1] == ["raptor"] and words[1:2] and words[1] in COMMANDS:
            found.append((page, words[1], words[2:]))
    return found


def expanded(page: str, line: str) -> str:
    """Replace arrays by what the page puts into them, and take out other variables."""
    path = ROOT / page
    text = path.read_text() if path.suffix == ".md" else ""
    for name, words in re.findall(r"^(\w+)=\(([^)]*)\)", text.replace("\\\n", " "), re.MULTILINE):
        line = line.replace(f'"${{{name}[@]}}"', words)
    return re.sub(r"\$\w+", "", line)


def test_the_readers_of_pages_find_commands() -> None:
    assert len(documented()) > 60
    assert {command for _, command, _ in composed()} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    assert [link for link in links if link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("page", "line"), documented())
def test_zsh_takes_a_command_as_it_stands(page: str, line: str) -> None:
    if not re.match(r"\w+=\(", line):  # an array
        assert not re.search(r"[\[\]?*~^()]", unquoted(line)), "quote what zsh would expand"
    assert not re.match(r"\w+=[\"'][^\"']* ", line), "zsh does not split variables: use an array"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_reads_commands_as_they_are_composed(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    lines = [re.sub(r"[;&|>].*", "", expanded(page, line)) for page, line in documented()]
    lines = [line for line in lines if not re.match(r"\w+=\(", line)]
    script = "\n".join(f"printf '%s\\0' {line} END" for line in lines)
    options = ["-f"] if shell == "zsh" else ["--norc"]
    done = subprocess.run([shell, *options, "-e"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split("\0") for line in done.stdout.removesuffix("\0END\0").split("\0END\0")]
    assert found == [shlex.split(line) for line in lines]


@pytest.mark.parametrize(("page", "command", "words"), composed())
def test_the_keys_and_values_of_a_command_are_valid(page: str, command: str, words: list[str]) -> None:
    folder = words[words.index("--config-dir") + 1] if "--config-dir" in words else None
    overrides = [word for word in words if "=" in word]
    if folder or any(word in ("--help", "--info") for word in words) or "..." in words:
        pytest.skip("shows help, or needs the reader's own files")
    parser = OverridesParser.create()

    def first(override: str) -> str:
        parsed = parser.parse_override(override)
        if not parsed.is_sweep_override():
            return override
        return f"{parsed.get_key_element()}={next(iter(parsed.sweep_string_iterator()))}"

    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        chosen = [first(override) for override in overrides]
        if "-m" in words:
            root = hydra.compose(command, chosen, return_hydra_config=True)
            given = {override.lstrip("+").split("=")[0] for override in overrides}
            params: dict[str, Any] = root.hydra.sweeper.params or {}
            chosen += [first(f"{key}={value}") for key, value in params.items() if key not in given]
        with sweeps.as_job(hydra.compose(command, chosen, return_hydra_config=True)) as config:
            try:
                importlib.import_module(f"raptor.{command}").main.parse(config)
            except ConfigError as error:  # the reader's own run decides the teacher
                assert "expected a run folder with config.yaml" in str(error)


def test_the_pages_of_the_site_are_made_from_code() -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is in the extra docs")
    site = importlib.import_module("scripts.docs_site")
    assert site.room_of("raptor/models/block.py") == "models"
    assert site.room_of("raptor/train.py") == "commands"
    assert site.room_of("pyproject.toml") is None
    page = site.options_page()
    assert "| `surrogate.block.depth_scaling` |" in page
    assert re.search(r"\| `trainer.refresh_every` \|.*\*watches\*", page)
    assert "raptor.models.block" in site.api_page("models")
