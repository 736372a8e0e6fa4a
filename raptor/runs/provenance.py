"""Provenance of a run: code, versions, machine and SLURM job."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from raptor.utils.files import PACKAGE
from raptor.version import __version__

PACKAGES = (
    *("torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf"),
    *("submitit", "numpy", "safetensors", "wandb"),
)
LONGEST_DIFF = 1_000_000  # characters that are kept


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that compute a result."""
    installed = {"python": platform.python_version(), "raptor": __version__}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def code() -> dict[str, Any]:
    """Return the git commit of the code and the changes since, as far as there is a repository.

    Returns
    -------
    dict
        ``commit`` (None outside a repository), ``dirty``, ``untracked`` files, and the ``diff`` as text.
    """
    commit = _git("rev-parse", "HEAD")
    if commit is None or _git("ls-files", "--error-unmatch", str(PACKAGE / "__init__.py")) is None:
        return {"commit": None, "dirty": None, "untracked": [], "diff": ""}
    diff = _git("diff", "HEAD") or ""
    untracked = (_git("ls-files", "--others", "--exclude-standard", "--full-name", ":/") or "").splitlines()
    if len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n[{len(diff) - LONGEST_DIFF} more characters are left out]\n"
    return {"commit": commit.strip(), "dirty": bool(diff or untracked), "untracked": untracked[:100], "diff": diff}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60, errors="replace").stdout
    except (OSError, subprocess.SubprocessError):
        return None


def process() -> dict[str, Any]:
    """Return host and id of this process."""
    return {"host": platform.node(), "pid": os.getpid()}


def method() -> dict[str, str]:
    """Return the choice of the group ``method`` on the command line, if there is one."""
    from hydra.core.hydra_config import HydraConfig

    chosen = HydraConfig.get().runtime.choices.get("method") if HydraConfig.initialized() else None
    return {} if chosen is None else {"method": str(chosen)}


def slurm() -> dict[str, Any]:
    """Return the ids of the SLURM job that this process is; empty elsewhere, and in an interactive allocation."""
    if "SLURM_JOB_ID" not in os.environ or os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return {}
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return {
        "job": f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"],
        "raw_job": os.environ["SLURM_JOB_ID"],
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "node": os.environ.get("SLURMD_NODENAME"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def machine() -> dict[str, Any]:
    """Return host, id and SLURM job of this process."""
    facts = {**process(), "package": str(PACKAGE), "slurm": slurm()}
    allocation = os.environ.get("SLURM_JOB_ID")
    return facts | ({"allocation": allocation} if allocation and not facts["slurm"] else {})
