"""Files of a user's own code: a module, and what it imports, without importing anything."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
OTHER_HOMES = {"site-packages", "dist-packages"}  # of the user and of the system, beside those of the environment


def imported_files(module: str) -> dict[str, Path]:
    """Find the file of a module and of every module that it imports, but for installed packages and this one.

    Imports are read from the source, wherever in it they stand, so that the result does not depend on what has been
    imported so far. The packages around a module count as imported.

    Parameters
    ----------
    module
        Dotted name.

    Returns
    -------
    dict of str to Path
        By name of the module; empty where it belongs to an installed package.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not _is_own(name.partition(".")[0]):
            continue
        seen.add(name)
        if parent := name.rpartition(".")[0]:
            waiting.append(parent)
        path = _file(name)
        if path is not None:
            found[name] = path
            package = name if path.name == "__init__.py" else parent
            waiting += _imports(path, package)
    return found


def _is_own(top: str) -> bool:
    """Whether a top-level name is neither this package nor installed nor the interpreter's."""
    if top == PACKAGE:
        return False
    spec = _spec(top)
    if spec is None:
        return False
    folders = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.has_location and spec.origin else [])]
    return bool(folders) and not any(is_installed(Path(folder)) for folder in folders)


def _spec(name: str) -> ModuleSpec | None:
    """Find a module without importing the packages around it."""
    top, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # of a program that is run as a script: __main__
        return None
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _file(name: str) -> Path | None:
    spec = _spec(name)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _imports(path: Path, package: str) -> Iterator[str]:
    """Yield names that may be modules; those that are attributes have no file."""
    if path.suffix != ".py":  # compiled
        return
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError:  # of a module that is imported at need only, and does not work
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            start = ".".join(filter(None, [base, node.module or ""]))
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names if alias.name != "*")


def is_installed(file: Path) -> bool:
    """Whether a module's file belongs to the interpreter or to an installed package."""
    homes = {Path(path).resolve() for name, path in sysconfig.get_paths().items() if name in LIBRARIES}
    path = file.resolve()
    return not OTHER_HOMES.isdisjoint(path.parts) or any(home in path.parents for home in homes)
