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

from raptor.errors import ModelFileError, RaptorError
from raptor.models.checkpoints import read_tensors
from raptor.models.weights import fill
from raptor.utils.files import atomic_write, resolve, sha256, write_json
from raptor.version import __version__

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = {"format": "raptor-model", "version": 1}


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
    """Write a model so that :func:`~raptor.models.load.load` rebuilds it.

    Parameters
    ----------
    model
        A teacher, surrogate, set of phase blocks or probe.
    folder
        Where to; made if missing. Both files are written atomically.
    about
        Plain data to keep beside the model (what made it, its figures).

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    atomic_write(folder / WEIGHTS, lambda tmp_path: save_file(state, tmp_path))
    description = {
        **FORMAT,
        "kind": model.kind,
        "raptor": __version__,
        "config": model.to_config(),  # type: ignore[operator]
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "parameters": sum(t.numel() for t in state.values()),
        "sha256": sha256(folder / WEIGHTS),
        "about": about or {},
    }
    write_json(folder / DESCRIPTION, description)
    return folder


def describe(folder: str | Path) -> dict[str, Any]:
    """Read and check the ``model.json`` of a model folder.

    Raises
    ------
    ModelFileError
        If the folder holds none, or a foreign or damaged one.
    """
    folder = resolve(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        what = "is a file" if folder.is_file() else "has no model.json" if folder.is_dir() else "does not exist"
        expected = f"the folder of a finished run, with {WEIGHTS} and {DESCRIPTION} (it {what})"
        raise ModelFileError(f"{folder}: expected {expected}. Fix: correct the path.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: expected JSON (it is damaged: {error}). Fix: copy it again, or run the job again."
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT["format"]:
        raise ModelFileError(
            f"{path}: expected format={FORMAT['format']} (it was not written by raptor). Fix: correct the path."
        )
    whole = isinstance(description.get("kind"), str) and "config" in description and "sha256" in description
    if description.get("version") != FORMAT["version"] or not whole:
        raise unreadable(path, description)
    return description


def unreadable(path: Path, description: Mapping[str, Any]) -> ModelFileError:
    """Error for a ``model.json`` of a kind or version that this release cannot read."""
    return ModelFileError(
        f"{path}: expected a kind and version that raptor {__version__} reads (it holds kind "
        f"{description.get('kind')!r} in version {description.get('version')}). Fix: update raptor."
    )


def read(folder: str | Path, cls: type[Any]) -> Any:
    """Rebuild a model of a known class from its folder, ready to use: on the CPU, in eval mode.

    Parameters
    ----------
    folder
        As for :func:`~raptor.models.load.load`, which finds the class by itself.
    cls
        Class of the model.

    Raises
    ------
    ModelFileError
        If it holds another kind of model; or if a file is missing, truncated, corrupt, foreign, or does not fit the
        other.
    """
    description = describe(folder)
    if description["kind"] != cls.kind:
        held = f"it holds a model of kind {description['kind']}"
        raise ModelFileError(f"{folder}: expected a {cls.__name__} ({held}). Fix: use raptor.load.")
    tensors = read_checked(folder, description, str(folder))  # before anything is built
    try:
        model = cls.from_config(description["config"])
        model.to(getattr(torch, description.get("dtype", "float32")))
    except (
        KeyError,
        TypeError,
        IndexError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        AttributeError,
        MemoryError,
        RaptorError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelFileError(
            f"{Path(folder) / DESCRIPTION}: expected what describes a model ({reason}). Fix: copy it again."
        ) from error
    model.about = description.get("about") or {}
    fill(model, tensors, str(folder))
    return model.eval()


def read_checked(folder: str | Path, description: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """Read the weights of a model folder, and check that its description names them.

    Parameters
    ----------
    folder
        A model folder.
    description
        Of :func:`describe`.
    where
        How to name the folder in errors.

    Raises
    ------
    ModelFileError
        If they are missing or damaged.
    """
    path = resolve(folder) / WEIGHTS
    if not path.is_file():
        raise ModelFileError(f"{where}: expected {WEIGHTS} there. Fix: let the run finish, or copy the file.")
    if (found := sha256(path)) != description["sha256"]:
        raise ModelFileError(
            f"{path}: expected the file that {DESCRIPTION} describes, of sha256 {str(description['sha256'])[:12]}... "
            f"(it is damaged or another, of {found[:12]}...). Fix: copy both files again, or run the job again."
        )
    return read_tensors(path)
