#!/usr/bin/env python3
"""Make a folder for publishing from a run: python scripts/make_release.py RUN TARGET [--probe RUN ...].

TARGET gets model.safetensors, model.json and a model card. ``huggingface-cli upload OWNER/NAME TARGET`` publishes it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from raptor.errors import RaptorError
from raptor.runs.release import release


def main() -> None:
    """Parse the command line, write the release, print its measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder that holds a model, such as runs/STUDY/surrogate")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--probe", type=Path, action="append", default=[], help="finished run of a probe on that model")
    arguments = parser.parse_args()
    try:
        about = release(arguments.run, arguments.target, arguments.probe)
    except RaptorError as error:
        sys.exit(f"error: {error}")
    for name, value in sorted(about["metrics"].items()):
        print(f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} missing")
    print(f"{arguments.target}: {', '.join(sorted(path.name for path in arguments.target.iterdir()))}")


if __name__ == "__main__":
    main()
