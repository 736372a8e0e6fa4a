"""Check that tensors have the shapes that the names of parameters promise: ``x_BND`` has three axes, B, N and D.

:func:`check_names` wraps every function of a package that has such parameters. In one call a letter stands for one
length, in all parameters alike. Code that torch compiles or exports is left as it is.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from beartype.door import is_bearable
from jaxtyping import Shaped, jaxtyped
from torch import Tensor

SUFFIX = re.compile(r"_([A-Z]+)$")


class ShapeError(AssertionError):
    """A tensor whose shape is not that of its name."""


def promised(function: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters of a function whose names end in axes."""
    parameters = [p for p in inspect.signature(function).parameters.values() if "Tensor" in str(p.annotation)]
    axes = {p.name: found[1] for p in parameters if (found := SUFFIX.search(p.name))}
    return {name: Shaped[Tensor, " ".join(letters)] for name, letters in axes.items()}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that its arguments are compared with their names; itself where no name has axes."""
    types, signature = promised(function), inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            values = signature.bind(*args, **kwargs).arguments
            with jaxtyped("context"):  # lengths of axes are remembered within
                for name, expected in types.items():
                    value = values.get(name)
                    if isinstance(value, Tensor) and not is_bearable(value, expected):
                        raise ShapeError(f"{function.__qualname__}: {name} has the shape {tuple(value.shape)}")
        return function(*args, **kwargs)

    return call if types else function


def functions_of(module: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Functions and methods that a module defines, with what holds them."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield module, name, value
        elif inspect.isclass(value):
            yield from ((value, key, item) for key, item in list(vars(value).items()) if inspect.isfunction(item))


def check_names(*packages: str) -> int:
    """Wrap the functions of all modules of some packages, wherever they were imported to; return how many."""
    wrapped: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    for package in packages:
        root = importlib.import_module(package)
        for info in pkgutil.walk_packages(root.__path__, f"{package}."):
            for holder, name, function in functions_of(importlib.import_module(info.name)):
                if (made := checked(function)) is not function:
                    setattr(holder, name, made)
                    wrapped[id(function)] = function, made
    for module in [m for name, m in sys.modules.items() if name.split(".")[0] in ("raptor", "tests", "benchmarks")]:
        for name, value in list(vars(module).items()):
            if id(value) in wrapped:
                setattr(module, name, wrapped[id(value)][1])
    return len(wrapped)
