"""Weight files: the tensors of a state dict, read without running anything that a file names."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from raptor.errors import ModelFileError

log = logging.getLogger(__name__)
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pyth")
# keys under which training scripts put a state dict, averaged weights first as in timm; the first one present counts
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("model", "state_dict", "model_state_dict", "teacher", "module", "net", "network", "backbone", "encoder"),
)
DEPTH = 4  # of such keys within each other


class Inert:
    """Stand-in for an object of a class that a file names: it keeps what was stored, and has no behaviour."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        """Ignore what the constructor would have been given."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


# what training scripts store beside the weights (options, metrics, paths); all of it is replaced by stand-ins
HARMLESS = {
    "argparse": ("Namespace",),
    "builtins": ("dict", "list", "tuple", "frozenset", "int", "float", "str", "bool", "bytes", "object", "slice"),
    "datetime": ("datetime", "date", "timedelta"),
    "easydict": ("EasyDict",),
    "functools": ("partial",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy.dtypes": tuple(f"{kind}DType" for kind in ("Bool", "Int32", "Int64", "Float16", "Float32", "Float64")),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": tuple(
        f"{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum", "Union")
    ),
    "pathlib": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "torch.optim": ("SGD", "Adam", "AdamW"),
    "torch.optim.adam": ("Adam",),
    "torch.optim.adamw": ("AdamW",),
    "torch.optim.sgd": ("SGD",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
    "uuid": ("UUID",),
}
DICTIONARIES = (  # subclasses of dict, which torch fills by themselves only
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "yacs.config.CfgNode",
)


def _empty(*_: Any) -> dict[Any, Any]:
    return {}


ALLOWED: list[Any] = [
    *((type("Stored", (Inert,), {}), f"{module}.{name}") for module, names in HARMLESS.items() for name in names),
    *((OrderedDict, name) for name in DICTIONARIES),
    (_empty, "collections.defaultdict"),
]


def read_tensors(path: Path, where: str | None = None) -> dict[str, Tensor]:
    """Read the state dict of a ``.safetensors`` file, or of a file that ``torch.save`` wrote.

    Parameters
    ----------
    path
        The file. A pickle is read by torch's weights-only loader; options beside the weights, of classes that are
        known by name (:data:`HARMLESS`), are passed over without building them.
    where
        How to name the file in errors.

    Returns
    -------
    dict of str to Tensor
        Of a checkpoint that holds more, the state dict under the first of :data:`WRAPPERS` that is there.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, holds no tensors, or names code.
    """
    where = where or str(path)
    if not path.is_file():
        raise _wrong(where, "a file that exists", "give a run folder, a .safetensors or a .pth file")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise _wrong(where, f"a whole safetensors file ({error})", "copy it again") from error
    if path.suffix.lower() not in PICKLES:
        known = f"a weight file, known are .safetensors, {', '.join(PICKLES)}"
        raise _wrong(where, known, "give such a file, or rename it if it is one")
    return unwrap(read_pickle(path, where), where)


def read_pickle(path: Path, where: str | None = None) -> Any:
    """Read what ``torch.save`` wrote by torch's weights-only loader: tensors and plain containers; nothing is run.

    Raises
    ------
    ModelFileError
        If the file is damaged or names code.
    """
    where = where or str(path)
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can end in any error
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise _wrong(
                where,
                f"tensors in plain containers (it names the code {named[1]} and was not opened)",
                "where you trust the file, open it with weights_only=False and save the state_dict() of what it holds",
            ) from error
        if "TorchScript" in str(error):
            fix = "save the state_dict() of the module in it"
            raise _wrong(where, "a state dict (it is a TorchScript archive)", fix) from error
        with path.open("rb") as file:
            pointer = file.read(16).startswith(b"version https://")
        if pointer:
            raise _wrong(where, "weights (it is a pointer of Git LFS)", "fetch the file: git lfs pull") from error
        reason = f"a whole file of torch.save (it is damaged or no file of torch.save: {error})"
        raise _wrong(where, reason, "copy it again") from error


def unwrap(values: Any, where: str) -> dict[str, Tensor]:
    """Find the state dict in what a training script saved.

    Raises
    ------
    ModelFileError
        If there is none.
    """
    found = _find(values, DEPTH)
    if found is None:
        held = f"a {type(values).__name__}"
        if isinstance(values, Mapping):
            held = ", ".join(f"{key} {_kind(value)}" for key, value in list(values.items())[:6])
        fix = "save model.state_dict() there"
        raise _wrong(where, f"a state dict, names with tensors (it holds {held})", fix)
    keys, others, tensors = found
    if others:
        log.info("%s: weights of %s, not of %s", where, ".".join(keys), ", ".join(others))
    return tensors


def _find(values: Any, depth: int) -> tuple[list[str], list[str], dict[str, Tensor]] | None:
    """Find the first state dict by the keys of training scripts: those keys, others beside them, and its tensors."""
    beside = [key for key in WRAPPERS if depth and isinstance(values, Mapping) and isinstance(values.get(key), Mapping)]
    for key in beside:
        if (found := _find(values[key], depth - 1)) is not None:
            keys, others, tensors = found
            return [key, *keys], [*(other for other in beside if other != key), *others], tensors
    tensors = _tensors(values)
    return ([], [], tensors) if any(x.ndim for x in tensors.values()) else None


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(map(str, list(value)[:3]))})"
    return "that is no tensor" if isinstance(value, Inert) else f"of {type(value).__name__}"


def _tensors(values: Any) -> dict[str, Tensor]:
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(name): value.detach() for name, value in items if isinstance(value, Tensor)}


def _wrong(where: str, expected: str, fix: str) -> ModelFileError:
    return ModelFileError(f"{where}: expected {expected}. Fix: {fix}.")
