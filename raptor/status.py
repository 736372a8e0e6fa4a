"""``python -m raptor.status FOLDER``: list the jobs of a study with their states."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from raptor.cli.logs import replace_unprintable
from raptor.errors import RaptorError
from raptor.launching.queue import states
from raptor.runs.status import Row, rows_of
from raptor.utils.terminal import plain

COLOURS = {
    "done": "green",
    "failed": "red",
    "interrupted": "magenta",
    "running": "cyan",
    "waiting": "yellow",
    "stale": "magenta",
    "unreadable": "red",
}
COLUMNS = ("job", "state", "task", "k", "method", "step", "steps/s", "attempt", "SLURM", "what")
ALL_DONE, FAILED, NOT_YET = 0, 1, 3  # exit codes; 2 is a mistake on the command line


def table(rows: Sequence[Row], root: Path) -> Text:
    """Format one line for each job, and a summary below; columns that are empty are left out.

    rich's own table takes seconds for a thousand rows.
    """
    cells = [[plain(cell).plain.replace("\n", " ") for cell in _cells(row)] for row in rows]
    used = [i for i in range(len(COLUMNS)) if i < 2 or any(line[i] for line in cells)]
    widths = {i: max(len(COLUMNS[i]), *(len(line[i]) for line in cells)) for i in used}
    widths[used[-1]] = 0
    text = plain(root, "italic").append("\n")
    text.append("  ".join(COLUMNS[i].ljust(widths[i]) for i in used).rstrip() + "\n", "bold")
    for line in cells:
        for i in used:
            text.append(line[i].ljust(widths[i]) + "  ", COLOURS[line[1]] if i == 1 else "")
        text.append("\n")
    counts = Counter(row.state.name for row in rows)
    summary = ", ".join(f"{counts[name]} {name}" for name in COLOURS if counts[name])
    return text.append(f"{len(rows)} jobs: {summary}", "italic")


def _cells(row: Row) -> tuple[Any, ...]:
    status = row.status
    about, slurm = status.get("about") or {}, status.get("slurm") or {}
    step = None if status.get("step") is None else f"{status['step']}/{status.get('total', status['step'])}"
    speed = status.get("steps_per_second") if row.state.name == "running" else None
    made = (about.get("task"), about.get("k"), about.get("method"))
    return (row.name, row.state.name, *made, step, speed, status.get("attempt"), slurm.get("job"), row.state.why)


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table for programs."""
    return [
        {"job": row.name, "state": row.state.name, "why": row.state.why, "checked": row.state.certain}
        | {"status": row.status}
        for row in rows
    ]


def exit_code(rows: Sequence[Row]) -> int:
    """Return 0 where all are done, 3 where some are still running or waiting and none was lost, 1 otherwise."""
    names = {row.state.name for row in rows}
    if names <= {"done"}:
        return ALL_DONE
    return NOT_YET if names <= {"done", "running", "waiting"} else FAILED


def main() -> None:
    """List the jobs of a study, on a terminal again and again until all have ended."""
    parser = argparse.ArgumentParser(
        prog="python -m raptor.status",
        description="List the jobs of a study. On a terminal the table is renewed until all jobs have ended.",
        epilog="Exit code: 0 all are done; 1 some failed, were interrupted, are stale (their process is gone and will "
        "not be restarted) or cannot be read; 3 some are still running or waiting.",
    )
    parser.add_argument("folder", type=Path, help="of a study, such as runs/table1, or of one run")
    parser.add_argument("--json", action="store_true", help="print JSON, once")
    parser.add_argument("--once", action="store_true", help="print the table once, on a terminal too")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (%(default)s)")
    replace_unprintable()
    arguments = parser.parse_args()
    console = Console()
    try:
        rows = rows_of(arguments.folder, states)
        if arguments.json:
            print(json.dumps(records(rows), indent=1))
        elif not console.is_terminal:
            print(table(rows, arguments.folder).plain)
        elif arguments.once:
            console.print(table(rows, arguments.folder), soft_wrap=True)
        else:
            with Live(table(rows, arguments.folder), console=console, auto_refresh=False) as live:
                while any(row.state.name in ("running", "waiting") for row in rows):
                    time.sleep(arguments.every)
                    rows = rows_of(arguments.folder, states)
                    live.update(table(rows, arguments.folder), refresh=True)
    except RaptorError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(exit_code(rows))


if __name__ == "__main__":
    main()
