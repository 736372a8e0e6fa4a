"""Text from elsewhere, printed as it is, also beside progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

KEPT = "\n\t"
Item = TypeVar("Item")


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
    with suppress(UnicodeEncodeError):  # a name of a file, where the locale's encoding is not that of the name
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Text("".join(c if c.isprintable() or c in KEPT else "\N{REPLACEMENT CHARACTER}" for c in text), style)


def progress_bars(*, disable: bool = False) -> Progress:
    """Make progress bars that vanish at the end, with descriptions printed as they are."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    described = TextColumn("{task.description}", markup=False)
    return Progress(
        described, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), transient=True, disable=disable
    )


def track(items: Iterable[Item], title: str, total: float | None = None) -> Iterator[Item]:
    """Iterate under a progress bar.

    Parameters
    ----------
    items
        What is iterated over.
    title
        Stands before the bar.
    total
        Number of items, where ``items`` has no length.
    """
    with progress_bars() as bars:
        yield from bars.track(items, total, description=plain(title).plain)
