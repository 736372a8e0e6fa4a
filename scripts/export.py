#!/usr/bin/env python3
"""Export a model for use without this package: python scripts/export.py runs/demo/surrogate-k3-seed0 k3.onnx."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import raptor
from raptor.errors import ConfigError, RaptorError
from raptor.models.backbone import Backbone
from raptor.models.export import TOLERANCE, export_int8, export_onnx, export_program


def main() -> None:
    """Parse the command line, export, print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="run folder or model folder of a teacher or surrogate")
    parser.add_argument("target", type=Path, help="FILE.onnx, or FILE.pt2 for torch.export")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest difference accepted (%(default)g)")
    parser.add_argument("--int8", action="store_true", help="matrices in 8 bits: a quarter of the size (.onnx only)")
    arguments = parser.parse_args()
    exporters = {".onnx": export_onnx, ".pt2": export_program}
    try:
        if arguments.target.suffix not in exporters:
            raise ConfigError.of("target", arguments.target, "a file .onnx or .pt2", "choose one of these formats")
        if arguments.int8 and arguments.target.suffix != ".onnx":
            raise ConfigError.of("target", arguments.target, "a file .onnx, as --int8 writes", "choose this format")
        model = raptor.load(arguments.model)
        if not isinstance(model, Backbone):
            expected = f"a teacher or surrogate (it holds a {type(model).__name__})"
            raise ConfigError.of("model", arguments.model, expected, "name its folder")
        if arguments.int8:
            found = f"mean cosine of final tokens to the model's own {export_int8(model, arguments.target):.4f}"
        else:
            difference = exporters[arguments.target.suffix](model, arguments.target, arguments.tolerance)
            found = f"at most {difference:.1e} from the model's own output"
    except RaptorError as error:
        sys.exit(f"error: {error}")
    size = arguments.target.stat().st_size / 1e6
    print(f"{arguments.target}: {size:.1f} MB, {found}")


if __name__ == "__main__":
    main()
