"""``python -m benchmarks``: measure, print a table, write a JSON."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.measure import Options, as_data, as_table, ceilings, facts, quiet
from raptor.utils.files import write_json

NAMES = {
    "step": "training steps of stage 1 and 2 against the official recipe's",
    "allocator": "steps on the CPU with freed memory kept",
    "processor": "float32 and bfloat16 of this processor: large products, and a step of each",
    "memory": "peak memory of a step",
    "together": "six phases in one run against six runs",
    "feed": "activation sources end to end; data or compute",
    "inference": "a surrogate against its teacher",
    "probes": "many heads in one pass (always on the CPU)",
    "phases": "exact max-cut up to 96 layers",
    "report": "a report of 2,000 runs",
    "status": "a table of 10,000 run folders",
    "startup": "commands, until they answer",
}


def main() -> None:
    """Run the chosen benchmarks one after the other."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Speed and memory, each row against a baseline that runs in turn with it.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each comparison (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes: shows that it works, the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where to write (%(default)s)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"{', '.join(unknown)}: unknown; choose among {', '.join(NAMES)}")
    if arguments.repeats < 1:
        parser.error(f"--repeats={arguments.repeats} starts at 1")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device={arguments.device}: there is no GPU that torch can use here")
    quiet()
    options = Options(torch.device(arguments.device), arguments.quick, arguments.repeats)
    console = Console(width=170)
    about = facts(options)
    about["ceilings"] = ceilings(options)
    console.print_json(data=about)
    found: dict[str, Any] = {"facts": about, "rows": {}}
    for name in arguments.names or NAMES:
        rows = importlib.import_module(f"benchmarks.{name}").run(options)
        console.print(as_table(f"{name}: {NAMES[name]}", rows))
        found["rows"][name] = as_data(rows)
        write_json(arguments.json, found)  # after each, so that a long call that is stopped leaves something
    console.print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
