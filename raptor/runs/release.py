"""Make a folder for publishing from a finished run: weights, description and a card with what was measured."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raptor.errors import ConfigError
from raptor.models.io import DESCRIPTION, WEIGHTS
from raptor.models.load import load
from raptor.runs.folder import RESULT
from raptor.utils.files import read_json

CARD, HUB = "README.md", "config.json"  # by the latter the Hugging Face hub counts downloads


def release(run: Path, target: Path, probes: Sequence[Path] = ()) -> dict[str, Any]:
    """Write ``model.safetensors``, ``model.json`` and a card ``README.md`` of the model of a run.

    Parameters
    ----------
    run
        Finished run folder that holds a model.
    target
        Folder to write to; a release that stands there is replaced.
    probes
        Finished run folders of probes on this model; their metrics are put beside those of the run, by data set.

    Returns
    -------
    dict
        What is kept beside the weights: what made the model, and its metrics.

    Raises
    ------
    ConfigError
        If a run is not finished, a probe is of another backbone, or ``target`` holds something else.
    """
    finished_result(run, "run")
    model = load(run)
    about = dict(model.about)
    about["metrics"] = dict(about.get("metrics") or {})
    for probe in probes:
        result = finished_result(probe, "probe")
        backbone = (result["model"].get("backbone") or {}).get("folder")
        if backbone is None or Path(backbone).resolve() != run.resolve():
            raise ConfigError.of(
                "probe", probe, f"a probe of {run} (it is of {backbone or 'a teacher'})", "name another"
            )
        where = f"{result['data']['name']}/{result['task']}"
        about["metrics"] |= {f"{where}/{name.removeprefix('val/')}": x for name, x in result["metrics"].items()}
    files = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if others := files - {CARD, HUB, WEIGHTS, DESCRIPTION}:
        raise ConfigError.of("target", target, f"an empty folder (it holds {min(others)})", "choose another")
    if files:
        shutil.rmtree(target)
    model.about = about
    model.save_pretrained(target)
    (target / CARD).chmod(0o644)
    return about


def finished_result(run: Path, key: str) -> dict[str, Any]:
    """Return the result of a run.

    Raises
    ------
    ConfigError
        If it is not finished.
    """
    result = read_json(run / RESULT)
    if result is None:
        raise ConfigError.of(key, run, f"a finished run, with {RESULT}", "finish it: the same command continues it")
    return result
