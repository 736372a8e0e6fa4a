"""The bundle for a machine with a GPU and no network holds what pyproject.toml needs and such a machine lacks."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_bundle.sh"
TEST_TOOLS = {"pytest", "beartype", "jaxtyping"}  # of the extra "test", which tests/test_gpu.py needs


def listed(name: str) -> set[str]:
    match = re.search(rf'^{name}="([^"]*)"', SCRIPT.read_text(), re.MULTILINE)
    assert match is not None
    return set(match[1].split())


def test_every_dependency_is_in_the_bundle_or_on_the_machine() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = set(project["dependencies"])
    needed |= {line for line in project["optional-dependencies"]["test"] if re.split(r"[>=<\[]", line)[0] in TEST_TOOLS}
    names = {re.split(r"[>=<\[]", line)[0]: line for line in needed}
    wheels = listed("wheels")
    assert {re.split(r"[>=<]", wheel)[0] for wheel in wheels} | listed("present") | listed("not_needed") == set(names)
    assert wheels <= needed  # with the same bounds
    assert not listed("present") & {re.split(r"[>=<]", wheel)[0] for wheel in wheels}


def test_the_script_is_one_that_bash_reads() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    inner = re.search(r"<<'RUN'\n(.*?)^RUN$", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)
    assert inner is not None
    subprocess.run(["bash", "-n"], input=inner[1], text=True, check=True)


def test_the_bundle_is_ignored_by_git() -> None:
    assert "build/" in (ROOT / ".gitignore").read_text().splitlines()
