"""Reading the official project's checkpoints, whole pickled modules, without running anything that they name.

A checkpoint is a graph of ``nn.Module`` objects. Every class that it names is replaced by an inert stand-in that
only keeps what was stored; torch's weights-only reader does the rest. The weights are then put into our blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raptor.errors import ConfigError, ModelFileError
from raptor.models.block import BlockConfig
from raptor.models.checkpoints import Inert
from raptor.models.surrogate import PhaseBlocks
from raptor.models.weights import fill
from raptor.partition.phases import Phase

# what a graph of modules may name; all of it is replaced by stand-ins
KNOWN_ROOTS = ("raptor", "block", "torch.nn", "torch._C._nn", "timm", "dinov2", "__main__", "functools.partial")


class StoredModule(Inert):
    """Stand-in for a module that a file names."""

    kind = ""  # the name in the file

    def child(self, *names: str) -> Any:
        """Submodule, parameter or attribute, by a path of names; None if there is none."""
        found: Any = self
        for name in names:
            state = getattr(found, "state", {})
            places = (state.get("_modules") or {}, state.get("_parameters") or {}, state)
            found = next((place[name] for place in places if isinstance(place, dict) and name in place), None)
        return found


def read_official(
    path: Path,
    phase: Sequence[int] | None = None,
    num_layers: int | None = None,
    thresholds: Sequence[int] | None = None,
) -> PhaseBlocks:
    """Blocks of an official checkpoint.

    Parameters
    ----------
    path
        A ``raptor.Raptor`` with ``blocks`` and ``thresholds``, or a single ``block.Block``, saved by ``torch.save``.
    phase
        Start layer and last layer of a single block.
    num_layers
        Depth L of the teacher, where the thresholds do not end with it.
    thresholds
        Instead of those in the file.

    Returns
    -------
    PhaseBlocks
        In the precision of the file.

    Raises
    ------
    ModelFileError
        If the file is damaged, names anything outside such a graph, or holds another architecture.
    ConfigError
        If the phases are not clear.
    """
    root = _read(path)
    stored = root.child("blocks")
    if stored is None:
        if phase is None:
            expected = "the layers that a single block produces"
            raise ConfigError.of("--phase", None, f"{expected} ({path})", "write --phase 0 7")
        blocks, phases = [root], [Phase(*phase)]
    else:
        if phase is not None:
            expected = "nothing, since the file holds several blocks with their thresholds"
            raise ConfigError.of("--phase", list(phase), expected, "leave --phase out")
        blocks = _children(stored)
        phases = read_thresholds(thresholds or root.child("thresholds"), len(blocks), num_layers)
    for start, end in phases:
        if not 0 <= start < end:
            raise ConfigError.of("phase", f"{start}-{end}", "0 <= start < end, since layers count from 0", "correct it")
    if not blocks or not all(isinstance(block, StoredModule) for block in blocks):
        raise ModelFileError(f"{path}: expected blocks of the official architecture. Fix: give such a file.")
    read = [_read_block(block, path) for block in blocks]
    if len({config for config, _ in read}) != 1:
        held = [c for c, _ in read]
        raise ModelFileError(f"{path}: expected blocks of one shape (they are {held}). Fix: import them one by one.")
    made = PhaseBlocks(read[0][0], phases)
    made.to(next(iter(read[0][1].values())).dtype)
    for ours, (_, state) in zip(made, read, strict=True):
        fill(ours.block, state, f"{path}, block {ours.phase}")
    return made


def read_thresholds(thresholds: Any, k: int, num_layers: int | None) -> list[Phase]:
    """Phases of k blocks from a list of layers, with or without the first (0) and the last (L).

    Raises
    ------
    ConfigError
        If they do not make k phases.
    """
    values = thresholds.tolist() if isinstance(thresholds, Tensor) else thresholds
    if isinstance(values, list | tuple):
        values = [v.item() if isinstance(v, Tensor) else v for v in values]
    if not isinstance(values, list) or not all(isinstance(v, int | float) and v == int(v) for v in values):
        raise ConfigError.of("--thresholds", thresholds, "a list of layers", "write --thresholds 7 10 12")
    values = [int(v) for v in values]
    edges = sorted({0, *values})
    if len(edges) == k:
        if num_layers is None:
            expected = f"the last layer too, with {k} blocks"
            raise ConfigError.of("--thresholds", values, expected, "give --layers L")
        edges = sorted({*edges, num_layers})
    if len(edges) != k + 1 or (num_layers is not None and edges[-1] != num_layers):
        expected = f"{k} phases of {num_layers or 'their'} layers"
        raise ConfigError.of("--thresholds", values, expected, "correct them")
    return [Phase(start, end) for start, end in pairwise(edges)]


def _read(path: Path) -> StoredModule:
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # a damaged pickle can end in any error
        raise ModelFileError(
            f"{path}: expected a whole file of torch.save (missing or damaged: {error}). Fix: copy it again."
        ) from error
    foreign = [n for n in named if not any(n == r or n.startswith(f"{r}.") for r in KNOWN_ROOTS)]
    if foreign:
        raise ModelFileError(
            f"{path}: expected the modules of such a checkpoint (it names {', '.join(foreign[:3])} and was not opened, "
            "nothing was run). Fix: save the modules without these attributes, where you trust the file."
        )
    inert = [(type("Stored", (StoredModule,), {"kind": name}), name) for name in named]
    try:
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            root = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(f"{path}: expected a readable checkpoint ({error}). Fix: copy it again.") from error
    if not isinstance(root, StoredModule):
        held = type(root).__name__
        raise ModelFileError(f"{path}: expected a pickled module (it holds a {held}). Fix: give such a file.")
    return root


def _children(module: Any) -> list[Any]:
    """Submodules in order: of a ModuleList or Sequential, or the entries of a plain list."""
    return list(module) if isinstance(module, list | tuple) else list((module.state.get("_modules") or {}).values())


def _kind(module: Any) -> str:
    return getattr(module, "kind", "nothing").rpartition(".")[2]


def _read_block(block: StoredModule, path: Path) -> tuple[BlockConfig, dict[str, Tensor]]:
    """Options of a block, and its weights by our names; anything that our block does not have is refused."""

    def refuse(what: str) -> ModelFileError:
        expected = f"a block of the official architecture (this {block.kind} has {what})"
        return ModelFileError(f"{path}: expected {expected}. Fix: import blocks of that project only.")

    def need(module: Any, kind: str, where: str) -> StoredModule:
        if _kind(module) != kind:
            raise refuse(f"{_kind(module)} as {where}, where {kind} is expected,")
        return module

    norms = {name: need(block.child(name), "LayerNorm", name) for name in ("norm1", "norm2")}
    attn = need(block.child("attn"), "MultiheadAttention", "attn")
    # dropout is without effect in a trained block
    mlp = [m for m in _children(block.child("mlp") or []) if _kind(m) not in ("Dropout", "Identity")]
    if len(mlp) != 3:
        raise refuse(f"{len(mlp)} parts in mlp, where 3 are expected,")
    activation = _kind(mlp[1]).lower()
    if "swiglu" not in activation and activation != "gelu":
        raise refuse(f"activation {activation}")
    if activation == "gelu" and mlp[1].child("approximate") not in (None, "none"):
        raise refuse(f"GELU approximated by {mlp[1].child('approximate')!r}")
    if attn.child("batch_first") is False or attn.child("add_zero_attn"):
        raise refuse("attention that is not batch first, or adds a zero token,")
    eps = {float(norm.child("eps")) for norm in norms.values()}
    if len(eps) != 1:
        raise refuse(f"norms of different epsilons {sorted(eps)}")

    parts = {"norm1": norms["norm1"], "norm2": norms["norm2"], "attn.proj": attn.child("out_proj")}
    parts |= {"mlp.fc1": need(mlp[0], "Linear", "mlp.0"), "mlp.fc2": need(mlp[2], "Linear", "mlp.2")}
    stored = {f"{ours}.{p}": part.child(p) for ours, part in parts.items() for p in ("weight", "bias")}
    stored |= {f"attn.qkv.{p}": attn.child(f"in_proj_{p}") for p in ("weight", "bias")}
    stored |= {f"gamma{i}": block.child(f"ls{i}", "gamma") for i in (1, 2)}
    depth_scaling = block.child("t_proj", "0", "weight") is not None
    if depth_scaling:
        need(block.child("t_proj", "1"), "SiLU", "t_proj.1")
        names = (("depth.fc1", "0"), ("depth.fc2", "2"))
        stored |= {f"{ours}.{p}": block.child("t_proj", n, p) for ours, n in names for p in ("weight", "bias")}
    if (stored["gamma1"] is None) != (stored["gamma2"] is None):
        raise refuse("LayerScale on one branch only")
    kept = {id(tensor) for tensor in stored.values() if tensor is not None}
    unread = [name for name, tensor in _tensors(block) if id(tensor) not in kept]
    if unread or (depth_scaling and block.child("t_scale") is False):
        raise refuse(f"weights that are not read ({', '.join(unread[:4]) or 't_proj, while t_scale is off'})")

    width = stored["norm1.weight"].numel()
    state = {name: tensor.detach() for name, tensor in stored.items() if tensor is not None}
    for name in stored.keys() - state.keys():  # a layer without bias is one with a bias of zero
        weight = state.get(name.replace(".bias", ".weight"))
        if weight is not None and name.endswith(".bias"):
            state[name] = weight.new_zeros(len(weight))
    config = BlockConfig(
        width=width,
        num_heads=int(attn.child("num_heads")),
        mlp="gelu" if activation == "gelu" else "swiglu",
        mlp_ratio=stored["mlp.fc2.weight"].shape[1] / width,
        layer_scale=None if stored["gamma1"] is None else 1e-5,
        depth_scaling=depth_scaling,
        eps=eps.pop(),
    )
    return config, state


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, StoredModule):
        return
    for kind in ("_parameters", "_buffers"):
        for name, tensor in (module.state.get(kind) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
    for name, child in (module.state.get("_modules") or {}).items():
        yield from _tensors(child, f"{prefix}{name}.")
