"""Text from elsewhere, printed as it is."""

from __future__ import annotations

from typing import Any

from rich.text import Text

KEPT = "\n\t"


def plain(value: Any, style: str = "") -> Text:
    """Return a name or message for rich to print: without markup, and without control characters.

    Parameters
    ----------
    value
        Name of a run, error message, path; None is empty.
    style
        Style of all of it.
    """
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() or c in KEPT else "\N{REPLACEMENT CHARACTER}" for c in text), style)
