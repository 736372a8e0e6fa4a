"""Text files are UTF-8, whatever the locale says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import raptor

ROOT = Path(raptor.__file__).parent.parent
FILES = sorted(path for room in ("raptor", "hydra_plugins", "scripts") for path in (ROOT / room).rglob("*.py"))
OPENS = {"read_text", "write_text", "open", "fdopen", "FileHandler"}
OTHERS = {"os.open", "Image.open", "job.open", "shelve.open", "self._open"}  # no text files, or no files


def opened_by_locale(path: Path) -> list[int]:
    """Lines on which a text file is opened without an encoding."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in OPENS or ast.unparse(node.func) in OTHERS:
            continue
        inside = [part for argument in [*node.args, *node.keywords] for part in ast.walk(argument)]
        modes = [part.value for part in inside if isinstance(part, ast.Constant)]
        binary = any(isinstance(mode, str) and "b" in mode and len(mode) < 4 for mode in modes)
        ours = name == "write_text" and isinstance(node.func, ast.Name)  # raptor.utils.files
        if not (binary or ours or any(k.arg == "encoding" for k in node.keywords)):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_file_is_opened_with_an_encoding(path: Path) -> None:
    assert opened_by_locale(path) == []
