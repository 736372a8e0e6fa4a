"""The command line as Hydra reads it: the flags that commands look at themselves, and the overrides."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from raptor.errors import ConfigError
from raptor.utils.files import CONFIGS


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


def check_encoding(arguments: Sequence[str]) -> None:
    """Refuse arguments that the locale's encoding does not read.

    Raises
    ------
    ConfigError
        If there is one.
    """
    for argument in arguments:
        if any("\udc80" <= character <= "\udcff" for character in argument):  # what Python makes of such bytes
            key, _, value = os.fsencode(argument).decode("utf-8", "replace").partition("=")
            expected = f"characters that the locale's encoding has ({sys.getfilesystemencoding()})"
            raise ConfigError.of(key, value, expected, "export LC_ALL=C.UTF-8, or write it in ASCII")


def without_null_groups(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Rewrite ``GROUP=null``, which Hydra refuses, as the deletion of the group, or as nothing where it is the default.

    Parameters
    ----------
    config_name
        Root configuration, without ``.yaml``.
    arguments
        Command line or overrides.

    Raises
    ------
    ConfigError
        For a group whose option another one chooses, which cannot be null, and for null in a sweep over a group.
    """
    root = yaml.safe_load((CONFIGS / f"{config_name}.yaml").read_text(encoding="utf-8"))
    chosen = {key: value for entry in root["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    kept = []
    for argument in arguments:
        group, _, value = argument.partition("=")
        if value == "null" and group in chosen:
            kept += [] if chosen[group] is None else [f"~{group}"]
        elif group in chosen and "null" in value.split(","):
            others = ",".join(name for name in value.split(",") if name != "null")
            fix = f"sweep over {group}={others}, and run the command once more without {group}"
            raise ConfigError.of(group, value, "options of the group, null is none of them in a sweep", fix)
        elif value == "null" and (folder := CONFIGS / group.partition("@")[0]).is_dir():
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise ConfigError.of(group, None, f"an option of the group: {names}", f"choose one, or leave {group} out")
        else:
            kept.append(argument)
    return kept


def with_new_keys(arguments: Sequence[str]) -> list[str]:
    """Let a mapping bring keys that the YAML file lacks: ``KEY={...}`` becomes ``++KEY={...}``.

    Hydra refuses them as unknown. The typed options hold the keys that a node takes, and name the unknown ones.
    """
    return [f"++{a}" if re.match(r"(?!hydra\.)[\w.]+=\s*\{", a) else a for a in arguments]


def expand_home() -> None:
    """Replace a leading ``~`` in the environment's roots, as a shell does where it is not quoted."""
    for name, value in os.environ.items():
        if name.startswith("RAPTOR_") and value.startswith("~"):
            os.environ[name] = str(Path(value).expanduser())
