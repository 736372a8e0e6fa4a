"""Load a model of any kind: the one place that imports them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from raptor.errors import ConfigError, ModelFileError
from raptor.models.heads import DepthProbe, LinearProbe
from raptor.models.io import DESCRIPTION, describe, read, unreadable
from raptor.models.rival import Rival
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.models.tied import PartitionEnsemble
from raptor.utils.files import resolve

Kind = TypeVar("Kind")
KINDS: dict[str, type[Any]] = {
    cls.kind: cls for cls in (Teacher, PhaseBlocks, Surrogate, Rival, PartitionEnsemble, LinearProbe, DepthProbe)
}


def load(folder: str | Path) -> Any:
    """Rebuild a model from its folder, ready to use: on the CPU, in eval mode.

    Parameters
    ----------
    folder
        A run folder or any folder with ``model.safetensors`` and ``model.json``; ``package:digits_vit`` is the
        teacher that ships with the package, ``package:digits_k2`` its surrogate of two blocks.

    Returns
    -------
    nn.Module
        What was saved: a :class:`~raptor.models.surrogate.Surrogate` (stage 2), a
        :class:`~raptor.models.rival.Rival` in its place, a
        :class:`~raptor.models.surrogate.PhaseBlocks` (stage 1), a :class:`~raptor.models.tied.PartitionEnsemble` (the
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


def load_kind(folder: str | Path, kind: type[Kind], key: str) -> Kind:
    """Load a model that a configuration names, once it is known to be of the kind that is needed.

    Parameters
    ----------
    folder
        As in :func:`load`.
    kind
        Class that the model must have.
    key
        Name of the key in the configuration.

    Raises
    ------
    ConfigError
        If there is no such folder, or it holds a model of another kind.
    """
    if not resolve(folder).exists():
        raise ConfigError.of(key, folder, "a run folder that exists", "finish the run that makes it first")
    model = load(folder)
    if not isinstance(model, kind):
        expected = f"a folder with a {kind.__name__} (it holds a {type(model).__name__})"
        raise ConfigError.of(key, folder, expected, "name the folder of another run")
    return model


def load_teacher(folder: str | Path) -> Teacher:
    """Rebuild a teacher from its folder.

    Parameters
    ----------
    folder
        As for :func:`load`.

    Raises
    ------
    ModelFileError
        If the folder holds another kind of model, or :func:`load` cannot read it.
    """
    model = load(folder)
    if not isinstance(model, Teacher):
        fix = "name the run folder of a teacher (task=classifier)"
        raise ModelFileError.of("folder", folder, f"a teacher, it holds a {model.kind}", fix)
    model.trained = True
    return model
