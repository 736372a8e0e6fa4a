"""Extension of griffe: roles such as ``:class:`~raptor.errors.ConfigError``` become links of the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`(?P<short>~)?(?P<path>[\w.]+)`")


class Roles(griffe.Extension):
    """Rewrite the roles in docstrings as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the roles of one object: a link within the package, code otherwise."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value)


def _link(role: re.Match[str]) -> str:
    path = role["path"]
    text = f"`{path.rpartition('.')[2] if role['short'] else path}`"
    return f"[{text}][{path}]" if path.startswith("raptor.") else text
