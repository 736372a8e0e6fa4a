"""``raptor COMMAND ...``: one console command in front of ``python -m raptor.COMMAND ...``."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from raptor.errors import ConfigError
from raptor.version import __version__

COMMANDS = {
    "train": "train one task and write its run folder: stage 1, stage 2, a probe or a teacher",
    "phases": "measure the distance between the layers of a teacher and cut its depth into phases",
    "extract": "write images or layers of a teacher to disk, for activations=cached",
    "dynamics": "measure how tokens move through depth, beside an untrained network",
    "report": "write tables, figures and one HTML page of a study",
    "reproduce": "run all stages of a study",
    "status": "show the jobs of a study",
}
COMPLETION = "--shell-completion", "-sc"

HELP = """raptor COMMAND [group=option ...] [key=value ...]

Commands (raptor COMMAND --help lists groups and keys):
{commands}

Completion of commands, groups and keys in bash:
  eval "$(raptor -sc install=bash)"
and in zsh, with this line before it:
  autoload -Uz bashcompinit && bashcompinit"""


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {key:<10} {does}" for key, does in COMMANDS.items())))
    elif name == "--version":
        print(f"raptor {__version__}")
    elif name in COMPLETION:
        complete(arguments)
    elif name in COMMANDS:
        run(name, arguments)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        fix = f"write raptor {near[0]}" if near else "raptor --help says what each does"
        sys.exit("error: " + str(ConfigError.of("command", name, f"one of {', '.join(COMMANDS)}", fix)))


def run(name: str, arguments: Sequence[str]) -> None:
    """Run one command in this process.

    Parameters
    ----------
    name
        Key of :data:`COMMANDS`.
    arguments
        What follows it on the command line.
    """
    sys.argv = [sys.argv[0], *arguments]
    importlib.import_module(f"raptor.{name}").main()  # by name: the commands stand above this package


def complete(arguments: Sequence[str]) -> None:
    """Answer the shell's completion: commands first, then Hydra's completion of the given command.

    Parameters
    ----------
    arguments
        As Hydra's ``--shell-completion`` takes them: ``install=bash``, ``uninstall=bash`` or ``query=bash``. A query
        reads the line from the environment, as bash sets it.
    """
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ")
    request = next(iter(arguments), "").partition("=")[0]
    if request == "query" and len(words) <= 2:
        print(" ".join(command for command in COMMANDS if command.startswith(words[-1])))
        return
    name = words[1] if request == "query" else "train"  # the script to install is the same for all of Hydra's commands
    if name in COMMANDS and name != "status":  # which takes a folder: the shell's own completion
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        run(name, [COMPLETION[0], *arguments])


if __name__ == "__main__":
    main()
