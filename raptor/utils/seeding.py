"""Seeds of everything random, as pure functions of the run's seed and a position."""

from __future__ import annotations

import hashlib


def derive_seed(*key: int | str) -> int:
    """Derive a 63-bit seed from integers and names; the same on every machine and in every process."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
