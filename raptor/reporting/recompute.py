"""The command of studies whose page of results is written from the files beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from raptor.utils.files import write_text


def fill_page(
    name: str, fill: Callable[[Path, str], str], description: str, arguments: Sequence[str] | None = None
) -> int:
    """Fill in a page of results, or check that it is up to date.

    Parameters
    ----------
    name
        File name of the page.
    fill
        Makes the text of the page from the folder that holds it and from its present text.
    description
        What ``--help`` says.
    arguments
        Command line: the folder, and ``--check`` to write nothing; None takes that of the process.

    Returns
    -------
    int
        Exit code: 1 where a check finds that the page would change.
    """
    parser = argparse.ArgumentParser(description=description.replace("``", ""))
    parser.add_argument("folder", type=Path, help="docs/results: the page and the files that it is written from")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page would change")
    options = parser.parse_args(arguments)
    page = options.folder / name
    before = page.read_text(encoding="utf-8")
    after = fill(options.folder, before)
    if options.check:
        print(f"{page}: {'up to date' if after == before else 'differs from its files; run without --check'}")
        return int(after != before)
    write_text(page, after)
    return 0
