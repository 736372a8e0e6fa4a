"""What code, versions, machine and SLURM job a run came from."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import raptor
from raptor.files import PACKAGE

PACKAGES = (
    *("torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf"),
    *("submitit", "numpy", "safetensors", "wandb"),
)
LONGEST_DIFF = 1_000_000  # characters that are kept


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    found = {"python": platform.python_version(), "raptor": raptor.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code() -> dict[str, Any]:
    """Git commit of the code, and what was changed since, as far as there is a repository.

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


def slurm() -> dict[str, Any]:
    """Ids of the SLURM job that a launcher submitted and this process is; empty elsewhere, in an allocation too."""
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
    """Host, process and SLURM job of this process."""
    found = {"host": platform.node(), "pid": os.getpid(), "package": str(PACKAGE), "slurm": slurm()}
    allocation = os.environ.get("SLURM_JOB_ID")
    return found | ({"allocation": allocation} if allocation and not found["slurm"] else {})


def rank() -> int:
    """Number of this process among those of a job, before any library counts them; 0 alone."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return 0


def package_copy(folder: Path) -> Path:
    """Copy the package and its configs to a folder named after what is in them, unless it is there.

    Returns
    -------
    Path
        What to put on ``PYTHONPATH``.
    """
    import hashlib
    import shutil

    from raptor.files import CONFIGS

    parts = {"raptor": PACKAGE, "configs": CONFIGS} if CONFIGS.parent != PACKAGE else {"raptor": PACKAGE}
    digest = hashlib.sha256()
    for name, source in parts.items():
        for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{name}/{path.relative_to(source)}".encode() + path.read_bytes())
    copy = folder / digest.hexdigest()[:12]
    if not copy.is_dir():
        part = folder / f".{copy.name}.{platform.node()}.{os.getpid()}"
        for name, source in parts.items():
            shutil.copytree(source, part / name, ignore=shutil.ignore_patterns("__pycache__", "local"))
        try:
            part.replace(copy)
        except OSError:  # another call was faster
            shutil.rmtree(part)
    return copy
