"""Identities of runs as earlier code recorded them, read by today's options.

Version 1 kept no identity of its own: it is read from ``config.yaml``, whose targets and keys are brought up to date.
Since version 2 it stands in ``identity.json``. A change of meaning or of a default raises the version, with a step in
:data:`STEPS` that says what an older value means today.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from raptor.errors import ConfigError, RunFolderError
from raptor.runs.identity import identity
from raptor.runs.options import PathsOptions, RunOptions
from raptor.utils.files import read_json
from raptor.utils.options import TARGET, keys, parse

log = logging.getLogger(__name__)
CONFIG, IDENTITY = "config.yaml", "identity.json"
VERSION = 3
TOLD_BY = {"train": "task", "dynamics": "surrogates", "phases": "solver"}  # command: a key that it alone has
WITHOUT_EFFECT = ("logger", "hydra")  # nodes of old configurations that no identity needs

# what configurations named before, and what they name today; ``_partial_`` goes with the old target
TARGETS = {
    "raptor.tasks.build.distill": "raptor.tasks.distillation.options.DistillOptions",
    "raptor.tasks.build.finetune": "raptor.tasks.distillation.options.FinetuneOptions",
    "raptor.tasks.build.classifier": "raptor.tasks.options.ClassifierOptions",
    "raptor.tasks.build.linear_probe": "raptor.tasks.probes.options.LinearProbeOptions",
    "raptor.tasks.build.segmentation_probe": "raptor.tasks.probes.options.SegmentationProbeOptions",
    "raptor.tasks.build.depth_probe": "raptor.tasks.probes.options.DepthProbeOptions",
    "raptor.tasks.build.partitions": "raptor.studies.small_scale.options.PartitionsOptions",
    "raptor.models.teacher.build_teacher": "raptor.models.options.TimmTeacherOptions",
    "raptor.data.transforms.crop_and_flip": "raptor.data.options.CropAndFlipOptions",
    "raptor.data.cifar100.CIFAR100": "raptor.data.options.CIFAR100Options",
    "raptor.data.ade20k.ADE20K": "raptor.data.options.ADE20KOptions",
    "raptor.data.digits.Digits": "raptor.data.options.DigitsOptions",
    "raptor.data.fashion_mnist.FashionMNIST": "raptor.data.options.FashionMNISTOptions",
    "raptor.data.image_folder.PictureFolders": "raptor.data.options.PictureFoldersOptions",
    "raptor.data.nyuv2.NYUv2": "raptor.data.options.NYUv2Options",
    "raptor.data.sources.Online": "raptor.data.options.OnlineOptions",
    "raptor.data.sources.Cached": "raptor.data.options.CachedOptions",
    "raptor.tasks.losses.TokenMSE": "raptor.tasks.distillation.options.TokenMSEOptions",
    "raptor.tasks.losses.WeightedTokenMSE": "raptor.tasks.distillation.options.WeightedTokenMSEOptions",
    "raptor.tasks.losses.VarianceScaledMSE": "raptor.tasks.distillation.options.VarianceScaledMSEOptions",
    "raptor.tasks.schedules.warmup_cosine": "raptor.training.options.WarmupCosineOptions",
    "raptor.tasks.schedules.warmup_cosine_shares": "raptor.training.options.WarmupCosineSharesOptions",
    "torch.optim.AdamW": "raptor.training.options.AdamWOptions",
    "timm.optim.Muon": "raptor.training.options.MuonOptions",
    "raptor.tasks.callbacks.LastCheckpoint": "raptor.training.options.CheckpointOptions",
    "raptor.tasks.callbacks.Snapshots": "raptor.training.options.SnapshotOptions",
    "raptor.tasks.execution.Progress": "raptor.training.options.ProgressOptions",
}
# keys that were called otherwise, by their full former name
RENAMED = {"surrogate.start": "surrogate.init", "mend": "repair"}
# what null meant at keys that have a name for it today
WAS_NULL = {"distance": "cosine"}
NOISE = "task.input_noise"


def _name_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {key: WAS_NULL.get(key) if value is None else value for key, value in values.items()}


def _mark_former_noise(values: dict[str, Any]) -> dict[str, Any]:
    """Keep noise that was added once a rollout apart from today's, which enters every application of a block."""
    noise = values.get(NOISE)
    return values | {NOISE: f"{noise} once a rollout"} if noise else values


# from the version of the key to the next one
STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    2: lambda values: _mark_former_noise(_name_nulls(values)),
}


def recorded(folder: Path, root: type[RunOptions]) -> dict[str, Any] | None:
    """Read the identity that a run folder records.

    Parameters
    ----------
    folder
        A run folder.
    root
        Typed root of the command that runs.

    Returns
    -------
    dict or None
        Values by key as :func:`~raptor.runs.identity.identity` gives them; None where there is no record.

    Raises
    ------
    RunFolderError
        If a newer release wrote it, or another command.
    """
    record = read_json(folder / IDENTITY)
    if record is not None:
        return values_of(record, root, folder)
    if not (folder / CONFIG).is_file():
        return None
    try:
        plain: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
        options = parse(root, upgrade(plain))
    except (ConfigError, ValueError, OSError) as error:
        expected = f"a configuration of raptor.{root.command} in {CONFIG} ({error})"
        raise RunFolderError.of("folder", folder, expected, "choose another name=..., or delete that folder") from error
    return _mark_former_noise(identity(options, roots(options)))


def values_of(record: Mapping[str, Any], root: type[RunOptions], folder: Path) -> dict[str, Any]:
    """Return the values of a recorded identity, as today's options call them.

    Raises
    ------
    RunFolderError
        If a newer release wrote it, or another command.
    """
    version = record["version"]
    if version > VERSION:
        expected = f"an identity of version {VERSION} or before (it has {version})"
        raise RunFolderError.of("folder", folder, expected, "update raptor, or choose another name=...")
    if record["command"] != root.command:
        expected = f"a run of raptor.{root.command}, it holds one of raptor.{record['command']}"
        raise RunFolderError.of("folder", folder, expected, "choose another name=...")
    return _up_to_date(record)


def _up_to_date(record: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(record["values"])
    for step in range(record["version"], VERSION):
        values = STEPS[step](values)
    return values


def read_options(folder: Path) -> dict[str, Any] | None:
    """Read what a run of any command computes, whichever release wrote it.

    Returns
    -------
    dict or None
        Values as of :func:`recorded`; None where they cannot be read.
    """
    try:
        record = read_json(folder / IDENTITY)
        if record is not None:
            return _up_to_date(record) if record["version"] <= VERSION else None
        plain = yaml.load((folder / CONFIG).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        command = next(name for name, key in TOLD_BY.items() if key in plain)
        root = importlib.import_module(f"raptor.{command}").main.options
        options = parse(root, upgrade(plain))
    except (ConfigError, KeyError, TypeError, ValueError, OSError, StopIteration, yaml.YAMLError) as error:
        log.debug("%s: %s", folder, error)
        return None
    return _mark_former_noise(identity(options, roots(options)))


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a configuration that earlier code wrote up to date: names of targets and keys."""
    kept = {key: value for key, value in values.items() if key not in WITHOUT_EFFECT}
    return _upgrade(_name_nulls(kept), "")


def _upgrade(node: Any, prefix: str) -> Any:
    if isinstance(node, list):
        return [_upgrade(part, prefix) for part in node]
    if not isinstance(node, Mapping):
        return node
    found = {}
    for key, value in node.items():
        full = f"{prefix}.{key}" if prefix else str(key)
        found[RENAMED.get(full, full).rpartition(".")[2]] = _upgrade(value, full)
    if found.get(TARGET) in TARGETS:
        found = {key: value for key, value in found.items() if key != "_partial_"}
        found[TARGET] = TARGETS[found[TARGET]]
    return found


def roots(options: RunOptions) -> dict[str, str]:
    """Return the roots of ``paths`` by name, with which identities are written."""
    return {key.name: str(getattr(options.paths, key.name)) for key in keys(PathsOptions)}
