#!/usr/bin/env python3
"""Convert a checkpoint of the official project into blocks of this one: import_official.py IN.pt OUT/.

The file is a pickle of whole modules; nothing that it names is run. OUT holds a set of blocks, as stage 1 makes: use
it as task.blocks=OUT of stage 2, or give --teacher to get the whole surrogate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import raptor
from raptor.errors import ConfigError, RaptorError
from raptor.models.io import save
from raptor.models.official import read_official
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher


def main() -> None:
    """Parse the command line, convert, print the contents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the official checkpoint: a raptor.Raptor or a block.Block")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--phase", type=int, nargs=2, metavar=("START", "END"), help="layers of a single block")
    parser.add_argument("--thresholds", type=int, nargs="+", help="layers that end the phases, instead of the file's")
    parser.add_argument("--layers", type=int, help="depth of the teacher, where the thresholds do not end with it")
    parser.add_argument(
        "--teacher", help="model folder of the teacher (raptor.models.io.save): write a whole surrogate"
    )
    arguments = parser.parse_args()
    try:
        blocks = read_official(arguments.source, arguments.phase, arguments.layers, arguments.thresholds)
        phases = ", ".join(map(str, blocks.phases))
        model: Surrogate | PhaseBlocks = blocks
        if arguments.teacher is not None:
            teacher = raptor.load(arguments.teacher)
            if not isinstance(teacher, Teacher):
                expected = f"the folder of a teacher (it holds a {type(teacher).__name__})"
                raise ConfigError.of("--teacher", arguments.teacher, expected, "name one")
            model = Surrogate.of_teacher(teacher, blocks)
        save(model, arguments.target, about={"task": "import_official", "source": arguments.source.name})
    except RaptorError as error:
        sys.exit(f"error: {error}")
    config = blocks.config
    print(f"{arguments.target}: {len(blocks)} blocks of width {config.width} ({config.mlp}), phases {phases}")


if __name__ == "__main__":
    main()
