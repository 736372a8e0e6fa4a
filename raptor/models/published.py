"""Models published in timm's format, a folder with ``config.json`` and weights: on this machine or on the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from raptor.errors import ConfigError, ModelFileError
from raptor.models.checkpoints import PICKLES
from raptor.utils.files import read_json, resolve

log = logging.getLogger(__name__)
CONFIG = "config.json"
LOCAL, HUB = "local-dir:", "hf-hub:"
# in the order in which timm looks for them
FILES = (
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)


@dataclass(frozen=True)
class Published:
    """A published model.

    Parameters
    ----------
    folder
        Where its files are.
    name
        timm's name of the architecture.
    options
        Keyword arguments of ``timm.create_model`` with which it was made.
    mean, std
        Normalisation of its input; None where the folder does not say.
    """

    folder: Path
    name: str
    options: dict[str, Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @property
    def weights(self) -> Path:
        """File with the weights.

        Raises
        ------
        ModelFileError
            If there is none.
        """
        files = [self.folder / name for name in FILES if (self.folder / name).is_file()]
        files += sorted(path for ending in (".safetensors", *PICKLES) for path in self.folder.glob(f"*{ending}"))
        if not files:
            raise ModelFileError.of("teacher.name", self.folder, "a folder with weights", f"put {FILES[0]} there")
        if len(files) > 1:
            log.info("%s: weights of %s", self.folder, files[0].name)
        return files[0]


def is_published(name: str) -> bool:
    """Whether a teacher's name is ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, as timm writes them."""
    return name.startswith((LOCAL, HUB))


def open_published(name: str, *, fetch_weights: bool = True) -> Published:
    """Read the description of a published model, which is fetched from the hub where it is not cached.

    Parameters
    ----------
    name
        ``local-dir:FOLDER``, or ``hf-hub:OWNER/NAME`` with ``@REVISION`` or without.
    fetch_weights
        Whether the weights are needed as well.

    Raises
    ------
    ConfigError
        If the folder is none of timm's, or the hub cannot be reached or has no such model.
    """
    folder = _fetch(name, weights=fetch_weights) if name.startswith(HUB) else resolve(name.removeprefix(LOCAL))
    if not folder.is_dir():
        raise ConfigError.of("teacher.name", name, "a folder that exists", "correct the path")
    values = read_json(folder / CONFIG)
    if values is None or not isinstance(values.get("architecture"), str):
        ours = (folder / "model.json").is_file()
        fix = f"set teacher.weights={folder} and teacher.name to its architecture" if ours else "correct the path"
        expected = f"a folder that timm wrote, whose {CONFIG} names the architecture"
        raise ConfigError.of("teacher.name", name, expected, fix)
    published = values.get("pretrained_cfg") or values  # older folders have one level
    options = _options(values, published)
    log.info("%s is %s with %s", name, values["architecture"], options)
    mean, std = (tuple(published[key]) if published.get(key) else None for key in ("mean", "std"))
    return Published(folder, values["architecture"], options, mean, std)


def _options(values: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what timm's factory takes from the description of a model, in its order of precedence."""
    options = {key: values.get(key, published.get(key)) for key in ("num_classes", "global_pool")}
    if size := published.get("input_size"):
        options["in_chans"] = size[0]
        if published.get("fixed_input_size"):
            options["img_size"] = list(size[1:])
    options |= values.get("model_args") or {}
    return {key: value for key, value in options.items() if value is not None}


def _fetch(name: str, *, weights: bool) -> Path:
    repository, _, revision = name.removeprefix(HUB).partition("@")
    wanted = [[CONFIG], [CONFIG, "*.safetensors"], [CONFIG, "*.bin", "*.pth"]]
    folder = Path()
    try:
        for patterns in wanted if weights else wanted[:1]:
            folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
            if any(folder.glob("*.safetensors")):
                break
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        fix = "check the name and the network, or copy the model here and set teacher.name=local-dir:FOLDER"
        raise ConfigError.of("teacher.name", name, f"a model that the hub or its cache has ({reason})", fix) from error
    return folder
