"""Captions and longer texts, kept in templates beside the code that shows them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

HERE = Path(__file__).parent / "templates"


@cache
def templates(folder: Path = HERE) -> jinja2.Environment:
    """Return the templates of a folder: HTML is escaped, a value that a template lacks is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder, encoding="utf-8"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def caption(name: str, folder: Path = HERE, **values: Any) -> str:
    """Fill in a text.

    Parameters
    ----------
    name
        A macro of ``captions.j2``.
    folder
        Folder of that file.
    values
        Arguments of the macro.
    """
    macro = getattr(templates(folder).get_template("captions.j2").module, name)
    return " ".join(str(macro(**values)).split())
