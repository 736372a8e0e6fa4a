"""The command line as Hydra reads it: the flags that commands look at themselves, and the overrides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags of Hydra's command line that change what a command does.

    Parameters
    ----------
    arguments
        Command line, without the name of the program.

    Returns
    -------
    argparse.Namespace
        ``help``, ``multirun``, ``cfg``, ``package``, ``config_dir`` and ``overrides``; Hydra reads the others.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("overrides", nargs="*")
    known, others = parser.parse_known_intermixed_args(arguments)
    known.overrides = [*known.overrides, *(o for o in others if not o.startswith("-"))]
    return known
