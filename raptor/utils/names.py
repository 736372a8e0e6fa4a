"""The error for a key that does not exist, with what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from raptor.errors import ConfigError, show


def unknown_key(
    name: str, value: Any, known: Sequence[str], renamed: str = "", *, addable: bool = False
) -> ConfigError:
    """Build the error for a key that does not exist: today's name, the nearest ones, or all of its neighbours.

    Parameters
    ----------
    name, value
        Full name of the key, and what was to be its value.
    known
        Full names of keys that exist.
    renamed
        Today's name of the key, where it had another one.
    addable
        Whether its node takes further keys by ``+``.
    """
    if renamed:
        return ConfigError.of(name, value, f"a key that exists (its name is {renamed} now)", f"write {renamed}")
    near = _near(name, known)
    add = f"; to add it to those that are handed on, write +{name}={show(value)}" if addable else ""
    if near:
        return ConfigError.of(name, value, "a key that exists", f"write {' or '.join(near)}, or remove it{add}")
    node = name.rpartition(".")[0]
    beside = [key.removeprefix(f"{node}.") for key in known if key.rpartition(".")[0] == node]
    expected = f"one of the keys of {node}: {', '.join(beside)}" if node and beside else "a key that exists"
    return ConfigError.of(name, value, expected, f"correct or remove it{add}; --cfg job prints all keys")


def _near(name: str, known: Sequence[str]) -> list[str]:
    """Find what a mistyped key may have meant: a neighbour of nearly its name, or that name elsewhere."""
    node, _, last = name.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == node}
    near = [beside[other] for other in difflib.get_close_matches(last, beside, n=3, cutoff=0.65)]
    elsewhere = [key for key in known if key.rpartition(".")[2] == last and key not in near]
    return near + elsewhere[:3]
