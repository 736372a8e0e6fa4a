"""Interpolations of configurations beyond OmegaConf's own."""

from __future__ import annotations

from omegaconf import OmegaConf


def cut_text(text: str, start: int, stop: int) -> str:
    """Return the characters ``start`` to ``stop`` - 1 of a text: ``${cut:k2-r0,1,2}`` is 2.

    Raises
    ------
    ValueError
        If the text is too short.
    """
    if not 0 <= start < stop <= len(text):
        raise ValueError(f"text={text}: expected characters {start} to {stop - 1}. Fix: give a longer text.")
    return text[start:stop]


OmegaConf.register_new_resolver("cut", cut_text, replace=True)
