"""What the project says about itself: dependencies and their lock, versions, targets that CI and docs name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import raptor

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK: dict[str, Any] = tomllib.loads((ROOT / "uv.lock").read_text())


def declared() -> dict[tuple[str, str], Requirement]:
    """All requirements by extra ("" for none) and name; extras that hold others are spread out."""
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]

    def spread(texts: list[str]) -> Iterator[Requirement]:
        for requirement in map(Requirement, texts):
            if requirement.name == PROJECT["name"]:
                yield from (inner for extra in sorted(requirement.extras) for inner in spread(extras[extra]))
            else:
                yield requirement

    groups = {"": PROJECT["dependencies"], **extras}
    return {(extra, canonicalize_name(r.name)): r for extra, texts in groups.items() for r in spread(texts)}


def test_the_lock_was_made_from_these_dependencies() -> None:
    (own,) = (package for package in LOCK["package"] if package["name"] == PROJECT["name"])
    locked = {
        (found[1] if (found := re.search(r"extra == '(\w+)'", entry.get("marker", ""))) else "", entry["name"]): entry
        for entry in own["metadata"]["requires-dist"]
        if entry["name"] != PROJECT["name"]
    }
    wanted = declared()
    assert locked.keys() == wanted.keys()
    for key, requirement in wanted.items():
        assert Requirement(f"x{locked[key].get('specifier', '')}").specifier == requirement.specifier, key


def test_locked_versions_satisfy_the_bounds() -> None:
    versions: dict[str, list[str]] = {}
    for package in LOCK["package"]:
        versions.setdefault(package["name"], []).append(package.get("version", "0"))
    for (_, name), requirement in declared().items():
        assert all(requirement.specifier.contains(version) for version in versions[name]), requirement


def test_the_lock_names_the_public_index_alone() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
    assert "file://" not in (ROOT / "uv.lock").read_text()


@pytest.mark.parametrize("requirement", {str(r): r for r in declared().values()}.values(), ids=str)
def test_every_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    assert any(specifier.operator == ">=" for specifier in requirement.specifier)


def test_versions_agree() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released == sorted(released, key=Version, reverse=True)
    assert released[0] == raptor.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == raptor.__version__


def test_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named: set[str] = set()
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/ci.yml"):
        named |= set(re.findall(r"(?:`|^\s*|run: |&& )make ([a-z-]+)", (ROOT / name).read_text(), re.M))
    assert named
    assert named <= targets


def test_ci_runs_on_the_oldest_and_newest_python() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    lower, upper = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert jobs["all"]["strategy"]["matrix"]["python"] == [f"3.{lower}", f"3.{int(upper) - 1}"]
