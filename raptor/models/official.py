"""Reading the official project's checkpoints, whole pickled modules, without running anything that they name.

A checkpoint is a graph of ``nn.Module`` objects. Every class that it names is replaced by an inert stand-in that
only keeps what was stored; torch's weights-only reader does the rest. The weights are then put into our blocks.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.errors import ConfigError, ModelFileError
from raptor.models.block import BlockConfig
from raptor.models.surrogate import PhaseBlocks
from raptor.partition.phases import Phase

KNOWN_ROOTS = ("raptor", "block", "torch.nn", "torch._C._nn", "timm", "dinov2", "__main__")


class StoredModule:
    """Stand-in for an object of a class that a file names: what was stored, and no behaviour."""

    kind = ""  # the name in the file

    def __new__(cls, *args: Any, **kwargs: Any) -> StoredModule:
        """Ignore what the constructor would have been given."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def child(self, *names: str) -> Any:
        """Submodule, parameter or attribute, by a path of names; None if there is none."""
        found: Any = self
        for name in names:
            state = getattr(found, "state", {})
            places = (state.get("_modules") or {}, state.get("_parameters") or {}, state)
            found = next((place[name] for place in places if isinstance(place, dict) and name in place), None)
        return found


def read_official(path: Path, phase: Sequence[int] | None = None, num_layers: int | None = None) -> PhaseBlocks:
    """Blocks of an official checkpoint.

    Parameters
    ----------
    path
        A ``raptor.Raptor`` with ``blocks`` and ``thresholds``, or a single ``block.Block``, saved by ``torch.save``.
    phase
        Start layer and last layer of a single block.
    num_layers
        Depth L of the teacher, where the thresholds do not end with it.

    Returns
    -------
    PhaseBlocks
        In the precision of the file.

    Raises
    ------
    ModelFileError
        If the file is damaged, names anything outside such a graph, or holds another architecture.
    ConfigError
        If the phases cannot be told.
    """
    root = _read(path)
    stored = root.child("blocks")
    if stored is None:
        if phase is None:
            raise ConfigError(f"{path} is a single block: say which layers it produces, such as --phase 0 7")
        blocks, phases = [root], [Phase(*phase)]
    else:
        blocks = list((stored.state.get("_modules") or {}).values())
        phases = read_thresholds(root.child("thresholds"), len(blocks), num_layers)
    configs = {_config(block, path) for block in blocks}
    if len(configs) != 1:
        raise ModelFileError(f"{path}: its blocks differ in shape or options ({configs})")
    made = PhaseBlocks(configs.pop(), phases)
    made.to(next(iter(_state(blocks[0]).values())).dtype)
    for ours, theirs in zip(made, blocks, strict=True):
        ours.block.load_state_dict(_state(theirs))
    return made


def read_thresholds(thresholds: Any, k: int, num_layers: int | None) -> list[Phase]:
    """Phases of k blocks from a list of layers, with or without the first (0) and the last (L).

    Raises
    ------
    ConfigError
        If they do not make k phases.
    """
    values = thresholds.tolist() if isinstance(thresholds, Tensor) else thresholds
    if not isinstance(values, list | tuple) or not all(isinstance(v, int) for v in values):
        raise ConfigError(f"thresholds {thresholds!r} are no list of layers")
    edges = sorted({0, *values})
    if len(edges) == k:
        if num_layers is None:
            raise ConfigError(f"thresholds {values} of {k} blocks do not say where depth ends: give --layers L")
        edges = sorted({*edges, num_layers})
    if len(edges) != k + 1 or (num_layers is not None and edges[-1] != num_layers):
        raise ConfigError(f"thresholds {values} do not make {k} phases of {num_layers or 'their'} layers")
    return [Phase(start, end) for start, end in pairwise(edges)]


def _read(path: Path) -> StoredModule:
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelFileError(f"{path} is missing, damaged or no file of torch.save ({error})") from error
    foreign = [n for n in named if not any(n == r or n.startswith(f"{r}.") for r in KNOWN_ROOTS)]
    if foreign:
        raise ModelFileError(
            f"{path} names {', '.join(foreign[:3])}, which no such checkpoint needs: it was not opened, nothing was run"
        )
    inert = [(type("Stored", (StoredModule,), {"kind": name}), name) for name in named]
    try:
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            root = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} cannot be read ({error})") from error
    if not isinstance(root, StoredModule):
        raise ModelFileError(f"{path} holds a {type(root).__name__}, no pickled module")
    return root


def _config(block: StoredModule, path: Path) -> BlockConfig:
    attn, activation = block.child("attn"), block.child("mlp", "1")
    kind = getattr(activation, "kind", "").rpartition(".")[2].lower()
    needed = [("norm1", "weight"), ("norm2", "weight"), ("attn", "in_proj_weight"), ("mlp", "0"), ("mlp", "2")]
    lacking = [".".join(names) for names in needed if block.child(*names) is None]
    mlp = "swiglu" if "swiglu" in kind else "gelu" if kind == "gelu" else None
    if lacking or mlp is None or attn.child("bias_k") is not None:
        what = f"{', '.join(lacking)} missing" if lacking else f"activation {kind!r} or bias_k"
        raise ModelFileError(f"{path}: a {block.kind} with {what} is no block of the official architecture")
    if mlp == "gelu" and activation.child("approximate") not in (None, "none"):
        raise ModelFileError(f"{path}: GELU is approximated by {activation.child('approximate')!r}, here it is exact")
    if attn.child("batch_first") is False:
        raise ModelFileError(f"{path}: attention is not batch first")
    width = block.child("norm1", "weight").numel()
    eps, eps2 = (float(block.child(norm, "eps") or 1e-5) for norm in ("norm1", "norm2"))
    if eps != eps2:
        raise ModelFileError(f"{path}: the norms have epsilons {eps} and {eps2}, here both are one")
    return BlockConfig(
        width=width,
        num_heads=int(attn.child("num_heads")),
        mlp=mlp,
        mlp_ratio=block.child("mlp", "2", "weight").shape[1] / width,
        layer_scale=None if block.child("ls1", "gamma") is None else 1e-5,
        depth_scaling=block.child("t_proj", "0", "weight") is not None,
        eps=eps,
    )


def _state(block: StoredModule) -> dict[str, Tensor]:
    width = block.child("norm1", "weight").numel()
    names: dict[str, tuple[str, ...]]
    names = {f"{norm}.{part}": (norm, part) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
    names |= {f"attn.qkv.{part}": ("attn", f"in_proj_{part}") for part in ("weight", "bias")}
    names |= {f"attn.proj.{part}": ("attn", "out_proj", part) for part in ("weight", "bias")}
    for ours, theirs in (("mlp.fc1", ("mlp", "0")), ("mlp.fc2", ("mlp", "2"))):
        names |= {f"{ours}.{part}": (*theirs, part) for part in ("weight", "bias")}
    if block.child("t_proj", "0", "weight") is not None:
        for ours, theirs in (("depth.fc1", ("t_proj", "0")), ("depth.fc2", ("t_proj", "2"))):
            names |= {f"{ours}.{part}": (*theirs, part) for part in ("weight", "bias")}
    if block.child("ls1", "gamma") is not None:
        names |= {"gamma1": ("ls1", "gamma"), "gamma2": ("ls2", "gamma")}
    like = block.child("norm1", "weight")
    rows = {"attn.qkv.bias": 3 * width, "mlp.fc1.bias": len(block.child("mlp", "0", "weight"))}
    found = {ours: block.child(*theirs) for ours, theirs in names.items()}
    for ours, tensor in found.items():
        if tensor is None and ours.endswith(".bias"):  # a layer without bias is one with a bias of zero
            found[ours] = like.new_zeros(rows.get(ours, width))
        elif tensor is None:
            raise ModelFileError(f"a {block.kind} lacks {'.'.join(names[ours])}: no block of the official architecture")
    return {ours: tensor.detach() for ours, tensor in found.items()}
