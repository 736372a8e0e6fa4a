"""Raptor: block-recurrent surrogates of Vision Transformers.

The package is imported without torch, so that commands answer ``--help`` and ``--cfg job`` at once; what
needs torch is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raptor.version import __version__

__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from raptor.models.load import load


def __getattr__(name: str) -> Any:
    if name == "load":
        from raptor.models.load import load

        return load
    raise AttributeError(f"module 'raptor' has no attribute {name!r}")
