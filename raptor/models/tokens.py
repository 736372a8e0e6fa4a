"""The one token layout that every slice of a token sequence goes through."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from torch import Tensor

from raptor.errors import ConfigError
from raptor.models.token_types import TOKEN_TYPES

log = logging.getLogger(__name__)
POOLED = ("cls", "patches")  # what a linear head sees


@dataclass(frozen=True)
class TokenLayout:
    """Order and number of the tokens of a ViT: class token, registers, patches.

    Parameters
    ----------
    cls
        Number of class tokens, 0 or 1.
    registers
        Number of register tokens.
    patches
        Number of patch tokens.
    """

    cls: int
    registers: int
    patches: int

    def __post_init__(self) -> None:
        if self.cls not in (0, 1) or self.registers < 0 or self.patches < 1:
            value = (self.cls, self.registers, self.patches)
            expected = "cls 0 or 1, registers >= 0, patches >= 1"
            raise ConfigError.of("token layout", value, expected, "choose a ViT that has such tokens")

    @property
    def num_tokens(self) -> int:
        """Length of the token sequence."""
        return self.cls + self.registers + self.patches

    @property
    def types(self) -> tuple[str, ...]:
        """Token types that are present, in sequence order."""
        return tuple(kind for kind, count in asdict(self).items() if count)

    def slice(self, kind: str) -> slice:
        """Positions of one token type in the sequence.

        Raises
        ------
        ConfigError
            If the type is unknown or this layout has none of it.
        """
        if kind not in self.types:
            raise ConfigError.of("token type", kind, f"one that this model has: {', '.join(self.types)}", "choose it")
        counts = asdict(self)
        start = sum(counts[earlier] for earlier in TOKEN_TYPES[: TOKEN_TYPES.index(kind)])
        return slice(start, start + counts[kind])

    def select(self, x: Tensor, kind: str) -> Tensor:
        """Tokens of one type: ``(..., N, D)`` to ``(..., N_kind, D)``."""
        return x[..., self.slice(kind), :]

    def pool(self, x: Tensor, kind: str) -> Tensor:
        """Mean over the tokens of one type: ``(..., N, D)`` to ``(..., D)`` (the class token is itself)."""
        return self.select(x, kind).mean(dim=-2)

    def features(self, x: Tensor) -> Tensor:
        """``[cls, mean patch]`` of final tokens, ``(B, N, D)`` to ``(B, 2D)``; without cls ``(B, D)``."""
        import torch

        return torch.cat([self.pool(x, kind) for kind in POOLED if kind in self.types], dim=-1)

    def num_features(self, width: int) -> int:
        """Width of :meth:`features` for tokens of ``width``."""
        return width * sum(kind in self.types for kind in POOLED)

    def present(self, kinds: Iterable[str], key: str) -> tuple[str, ...]:
        """Select the requested types that are present, and log those that are not.

        Raises
        ------
        ConfigError
            Naming the configuration ``key``, if none of them is present.
        """
        asked = tuple(kinds)
        found = tuple(kind for kind in asked if kind in self.types)
        if asked and not found:
            expected = f"types that this model has: {', '.join(self.types)}"
            raise ConfigError.of(key, list(asked), expected, f"choose among them, such as {key}=[{self.types[-1]}]")
        if absent := [kind for kind in asked if kind not in self.types]:
            log.info("%s: this teacher has no %s tokens, so %s is left", key, " or ".join(absent), ", ".join(found))
        return found
