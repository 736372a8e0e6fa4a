"""``python -m raptor.status FOLDER``: how the jobs of a study do."""

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
from rich.table import Table
from rich.text import Text

from raptor.errors import RaptorError
from raptor.launching import slurm
from raptor.runs.status import Row, rows_of

COLOURS = {"done": "green", "failed": "red", "running": "cyan", "waiting": "yellow", "stale": "magenta"}
ALL_DONE, FAILED, NOT_YET = 0, 1, 3  # exit codes; 2 is a mistake on the command line


def table(rows: Sequence[Row], root: Path) -> Table:
    """One line for each job, and a summary below."""
    counts = Counter(row.state.name for row in rows)
    summary = ", ".join(f"{counts[name]} {name}" for name in COLOURS if counts[name])
    shown = Table(title=str(root), caption=f"{len(rows)} jobs: {summary}", title_justify="left", caption_justify="left")
    for column in ("job", "state", "step", "steps/s", "attempt", "SLURM", "what"):
        shown.add_column(column, overflow="fold")
    for row in rows:
        status = row.status
        step = "" if status.get("step") is None else f"{status['step']}/{status.get('total', status['step'])}"
        speed = status.get("steps_per_second") if row.state.name == "running" else None
        cells = (step, speed, status.get("attempt"), (status.get("slurm") or {}).get("job"), row.state.why)
        shown.add_row(
            row.name,
            Text(row.state.name, style=COLOURS[row.state.name]),
            *(Text("" if cell is None else str(cell)) for cell in cells),
        )
    return shown


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table for programs."""
    return [
        {"job": row.name, "state": row.state.name, "why": row.state.why, "checked": row.state.certain}
        | {"status": row.status}
        for row in rows
    ]


def exit_code(rows: Sequence[Row]) -> int:
    """0 where all are done, 1 where one failed or was lost, 3 where there is still something to come."""
    names = {row.state.name for row in rows}
    if names <= {"done"}:
        return ALL_DONE
    return FAILED if names & {"failed", "stale"} else NOT_YET


def main() -> None:
    """Show the jobs of a study, until all have ended where somebody looks on."""
    parser = argparse.ArgumentParser(
        prog="python -m raptor.status",
        description="How the jobs of a study do. On a terminal the table is renewed until all jobs have ended.",
        epilog="Exit code: 0 all are done, 1 some failed or are stale (nobody is at work on them any more), "
        "3 some are still running or waiting.",
    )
    parser.add_argument("folder", type=Path, help="of a study, such as runs/table1, or of one run")
    parser.add_argument("--json", action="store_true", help="print JSON, once")
    parser.add_argument("--once", action="store_true", help="print the table once, on a terminal too")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (%(default)s)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        rows = rows_of(arguments.folder, slurm.states)
        if arguments.json:
            print(json.dumps(plain(rows), indent=1))
        elif arguments.once or not console.is_terminal:
            console.print(table(rows, arguments.folder))
        else:
            with Live(table(rows, arguments.folder), console=console, auto_refresh=False) as live:
                while exit_code(rows) == NOT_YET or any(row.state.name in ("running", "waiting") for row in rows):
                    time.sleep(arguments.every)
                    rows = rows_of(arguments.folder, slurm.states)
                    live.update(table(rows, arguments.folder), refresh=True)
    except RaptorError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(exit_code(rows))


if __name__ == "__main__":
    main()
