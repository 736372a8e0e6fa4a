"""``python -m benchmarks.acceptance``: prove on this machine's GPU what the tests cannot prove without one.

Every part runs in a process of its own, and its result is written when it ends: a call that is stopped is continued by
the same call, which skips parts that passed with the same code on the same device. ``--device cpu --quick`` runs the
same parts in small on a machine without a GPU, to show that they run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

DEFAULT = Path("build") / "acceptance"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    from benchmarks.acceptance.runner import PARTS

    listed = "\n".join(f"  {name:12} {what}" for name, (what, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.acceptance",
        description=f"{__doc__}\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="which (default: all)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="small shapes: shows that it runs, no figure means a thing"
    )
    parser.add_argument("--to", type=Path, default=DEFAULT, help="folder of the results (%(default)s)")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of a part (%(default)s)")
    found = parser.parse_args(arguments)
    if unknown := sorted(set(found.parts) - set(PARTS)):
        parser.error(f"{', '.join(unknown)}: unknown; choose among {', '.join(PARTS)}")
    return found


def missing_gpu() -> str | None:
    """Return the message for a machine without a GPU that torch can use; None where there is one."""
    import torch

    from raptor.errors import ConfigError

    if torch.cuda.is_available():
        return None
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    expected = f"an NVIDIA GPU that torch can use (torch {torch.__version__} {built}, and finds no GPU)"
    fix = "run this on a machine with one, or run the same parts in small on the CPU by make gpu DEVICE=cpu QUICK=1"
    return str(ConfigError.of("device", "cuda", expected, fix))


def main() -> int:
    """Run the parts and write ``acceptance.json`` and ``acceptance.md``; return the exit code."""
    arguments = parse()
    import torch

    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the commands take a GPU where they see one
        if arguments.quick:  # threads of small products wait for each other where cores are shared: ten times the time
            os.environ["OMP_NUM_THREADS"] = "1"
            torch.set_num_threads(1)
    elif message := missing_gpu():
        print(f"error: {message}", file=sys.stderr)
        return 2

    from rich.console import Console

    from benchmarks.acceptance.page import failures, missed, page
    from benchmarks.acceptance.runner import PARTS, machine, passed_before, run_part
    from benchmarks.measure import Options
    from raptor.utils.files import write_json, write_text

    options = Options(torch.device(arguments.device), quick=arguments.quick, repeats=3)
    console, target, begin = Console(width=160, highlight=False), arguments.to.absolute(), time.monotonic()
    about = machine(options)
    before = {name: part for name in PARTS if (part := passed_before(name, target, about))}
    found: dict[str, Any] = {"facts": about, "parts": before}
    for name in arguments.parts or PARTS:
        part = found["parts"][name] = run_part(name, options, target, about, arguments.minutes)
        how = "passed before" if part.get("skipped") else part["state"]
        console.print(f"{name:12} {how:14} {part['seconds']:6.1f} s  {PARTS[name][0]}", markup=False)
        for line in failures({name: part}) + missed({name: part}):
            console.print(f"  {line}", markup=False)
        write_json(target / "acceptance.json", found)
        write_text(target / "acceptance.md", page(found))
    failed = failures(found["parts"])
    console.print(f"{time.monotonic() - begin:.0f} s. Written to {target / 'acceptance.json'} and acceptance.md.")
    logs = target / "parts"
    console.print(
        f"{len(failed)} failed; logs in {logs}: " + "; ".join(failed) if failed else "Nothing failed.", markup=False
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
