"""Loading a model of any kind: the one place that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raptor.models.heads import DepthProbe, LinearProbe
from raptor.models.io import DESCRIPTION, describe, read, unreadable
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.models.tied import TiedSet
from raptor.utils.files import resolve

KINDS: dict[str, type[Any]] = {
    cls.kind: cls for cls in (Teacher, PhaseBlocks, Surrogate, TiedSet, LinearProbe, DepthProbe)
}


def load(folder: str | Path) -> Any:
    """Rebuild a model from its folder, ready to use: on the CPU, in eval mode.

    Parameters
    ----------
    folder
        A run folder or any folder with ``model.safetensors`` and ``model.json``; ``package:digits_vit`` is the
        teacher that ships with the package.

    Returns
    -------
    nn.Module
        What was saved: a :class:`~raptor.models.surrogate.Surrogate` (stage 2), a
        :class:`~raptor.models.surrogate.PhaseBlocks` (stage 1), a :class:`~raptor.models.tied.TiedSet` (the
        small-scale study), a :class:`~raptor.models.teacher.Teacher` or a
        :class:`~raptor.models.heads.LinearProbe` (of images or patches) or
        :class:`~raptor.models.heads.DepthProbe`.

    Raises
    ------
    ModelFileError
        If a file is missing, truncated, corrupt, foreign, or does not fit the other.
    """
    description = describe(folder)
    if description["kind"] not in KINDS:
        raise unreadable(resolve(folder) / DESCRIPTION, description)
    return read(folder, KINDS[description["kind"]])
