"""All errors have one shape, ``key=value: expected X. Fix: Y.``; the few that do not are listed with a reason."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import raptor.errors
from raptor.errors import ConfigError

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("raptor", "hydra_plugins", "scripts") for path in (ROOT / room).rglob("*.py"))
ERRORS = {name for room in (builtins, raptor.errors) for name in vars(room) if name.endswith("Error")} | {"BusyError"}
SHAPE = re.compile(r"[^:].*: expected .+\. Fix: .+", re.DOTALL)
LATER = {"raptor/studies/controls/rows.py:rows", "raptor/studies/controls/rows.py:floors"}  # not in the shape yet
OTHERS = {  # function: why its errors have another shape
    "raptor/__init__.py:__getattr__": "Python's own message for a name that a module lacks",
    "raptor/models/teacher.py:__getattr__": "Python's own message for a name that a module lacks",
    "raptor/utils/files.py:atomic_write": "an error of the system, raised again with the file's name",
    "raptor/utils/locks.py:acquire": "caught by what names the key: a run folder, a store",
    "raptor/data/pixels.py:__getitems__": "the message was in the one shape when the cache was written",
    "raptor/data/sources.py:connect": "the message was in the one shape when the store was written",
    "raptor/data/store/reading.py:read_checksums": "a reason, which _broken and verify_shard put in the one shape",
    "scripts/download_heads.py:download": "a reason, which main puts in the one shape",
    "raptor/data/store/writing.py:_verify_file": "a reason, which verify_shard returns",
}


def text_of(node: ast.expr) -> str | None:
    """Return what a literal or an f-string says, with ``~`` for each value; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "~" for part in node.values)
    return None


def errors(tree: ast.AST, function: str = "") -> Iterator[tuple[str, int, str | None]]:
    """Walk the errors that a file builds by hand: function, line and text of each."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            yield inner, node.lineno, text_of(node.args[0]) if node.args else None
        yield from errors(node, inner)


def offenders(path: Path) -> dict[str, list[str]]:
    """Find the functions of a file whose errors are not in the one shape, and what these say."""
    found: dict[str, list[str]] = {}
    for function, line, text in errors(ast.parse(path.read_text(encoding="utf-8"))):
        if text is None or not SHAPE.fullmatch(text):
            found.setdefault(f"{path.relative_to(ROOT)}:{function}", []).append(f"line {line}: {text}")
    return found


def test_every_error_names_key_value_expected_and_fix() -> None:
    found = {name: said for path in FILES for name, said in offenders(path).items()}
    assert {name: said for name, said in found.items() if name not in OTHERS and name not in LATER} == {}
    assert OTHERS.keys() <= found.keys()  # nothing is excused that needs no excuse


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ('raise ConfigError("k must be positive")', False),
        ('raise ValueError(f"k={k} must be positive")', False),
        ("raise ValueError(reason)", False),
        ('raise ConfigError(f"k={k}: expected integer >= 1. Fix: set k=2.")', True),
        ('raise ConfigError.of("k", k, "integer >= 1", "set k=2")', True),
        ("raise", True),
    ],
)
def test_what_is_refused(source: str, fits: bool) -> None:
    said = [text for _, _, text in errors(ast.parse(source))]
    assert all(text is not None and SHAPE.fullmatch(text) for text in said) == fits


def test_the_shape() -> None:
    assert SHAPE.fullmatch(str(ConfigError.of("a.b", [1, None], "a number", "set it")))
