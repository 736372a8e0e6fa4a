"""Models on disk: ``model.safetensors`` beside a ``model.json`` that rebuilds the architecture.

No pickle is ever read or written here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import raptor
from raptor.errors import ModelFileError, RaptorError
from raptor.files import resolve, sha256, write_aside, write_json
from raptor.models.weights import convert, fill, fit_positions, read_tensors

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
POSITIONS = "shell.vit.pos_embed"
FORMAT = {"format": "raptor-model", "version": 1}


def _kinds() -> dict[str, Any]:
    from raptor.models.heads import DepthProbe, LinearProbe
    from raptor.models.surrogate import PhaseBlocks, Surrogate
    from raptor.models.teacher import Teacher
    from raptor.models.tied import TiedSet

    return {
        "teacher": Teacher,
        "blocks": PhaseBlocks,
        "surrogate": Surrogate,
        "tied": TiedSet,
        "linear_probe": LinearProbe,
        "depth_probe": DepthProbe,
    }


def state_fingerprint(module: nn.Module) -> str:
    """SHA-256 over names and bytes of all weights of a module: equal weights, equal digits."""
    return tensors_fingerprint(module.state_dict())


def tensors_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(model: nn.Module, folder: str | Path, about: dict[str, Any] | None = None) -> Path:
    """Write a model so that :func:`load` rebuilds it.

    Parameters
    ----------
    model
        A teacher, surrogate, set of phase blocks or probe.
    folder
        Where to; made if missing. Both files are written aside and renamed.
    about
        Plain data to keep beside the model (what made it, its figures).

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = next(name for name, cls in _kinds().items() if type(model) is cls)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_aside(folder / WEIGHTS, lambda aside: save_file(state, aside))
    description = {
        **FORMAT,
        "kind": kind,
        "raptor": raptor.__version__,
        "config": model.to_config(),  # type: ignore[operator]
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "parameters": sum(t.numel() for t in state.values()),
        "sha256": sha256(folder / WEIGHTS),
        "about": about or {},
    }
    write_json(folder / DESCRIPTION, description)
    return folder


def describe(folder: str | Path) -> dict[str, Any]:
    """The ``model.json`` of a model folder, checked.

    Raises
    ------
    ModelFileError
        If the folder holds none, or a foreign or damaged one.
    """
    folder = resolve(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        what = "is a file" if folder.is_file() else "has no model.json" if folder.is_dir() else "does not exist"
        raise ModelFileError(
            f"{folder} {what}: give the folder of a finished run (it holds {WEIGHTS} and {DESCRIPTION})"
        )
    try:
        description = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is damaged ({error}): copy it again, or run the job again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT["format"]:
        raise ModelFileError(f"{path} was not written by raptor: it lacks format={FORMAT['format']!r}")
    known = description.get("kind") in _kinds() and "config" in description and "sha256" in description
    if description.get("version") != FORMAT["version"] or not known:
        raise ModelFileError(
            f"{path} holds kind {description.get('kind')!r} in version {description.get('version')}, which this "
            f"raptor {raptor.__version__} cannot read: update raptor"
        )
    return description


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
    try:
        model = _kinds()[description["kind"]].from_config(description["config"])
        model.to(getattr(torch, description.get("dtype", "float32")))
    except (
        KeyError,
        TypeError,
        IndexError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        AttributeError,
        RaptorError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{Path(folder) / DESCRIPTION} does not describe a model ({reason})") from error
    model.about = description.get("about") or {}
    read_weights(model, folder)
    return model.eval()


def read_weights(model: nn.Module, source: str | Path, key: str = "", own_head: bool = False) -> None:
    """Fill a model from a model folder, or a teacher from a plain weight file.

    Parameters
    ----------
    model
        The model to fill, in place.
    source
        Folder; ``package:NAME`` for one that ships with the package; or a file with a state dict,
        ``.safetensors`` or ``.pth``, in a key layout that :func:`~raptor.models.weights.convert` knows.
    key
        Configuration key to name in errors.
    own_head
        Whether a folder's weights may lack the linear head of the model, which then keeps its own.

    Raises
    ------
    ModelFileError
        If the source is missing, damaged or of another shape; the model is then unchanged.
    """
    where = f"{key}={source}" if key else str(source)
    head = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("shell.linear_head.")}
    source = resolve(source)
    if source.is_dir():
        description = describe(source)
        path = source / WEIGHTS
        if not path.is_file():
            raise ModelFileError(f"{where} has no {WEIGHTS}: the run did not finish, or the file was not copied")
        if (found := sha256(path)) != description["sha256"]:
            raise ModelFileError(
                f"{path} is damaged or not the file that {DESCRIPTION} describes (sha256 {found[:12]}..., expected "
                f"{str(description['sha256'])[:12]}...): copy both files again, or run the job again"
            )
        tensors = read_tensors(path)
        if isinstance(model, _kinds()["teacher"]) and POSITIONS in tensors:  # at any input size
            sizes = [o.get("img_size") for o in (_vit_options(description), model.spec.options)]
            same = sizes[0] == sizes[1]  # the number of patches alone does not tell 8x8 from 4x16
            tensors[POSITIONS] = fit_positions(model.shell.vit, model.spec.name, tensors[POSITIONS], same, where)
        fill(model, (head if own_head else {}) | tensors, where)
        return
    tensors = read_tensors(source, where)
    if not isinstance(model, _kinds()["teacher"]):
        raise ModelFileError(f"{where} is a bare weight file, which can fill a teacher only")
    state = convert(model.shell.vit, model.spec.name, tensors, where)
    fill(model, head | {_from_timm(name): tensor for name, tensor in state.items()}, where)


def _vit_options(description: Mapping[str, Any]) -> dict[str, Any]:
    return dict(description["config"].get("vit", {}).get("options", {}))


def _from_timm(name: str) -> str:
    return name if name.startswith("blocks.") else f"shell.vit.{name}"
