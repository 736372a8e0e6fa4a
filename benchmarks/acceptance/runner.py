"""Run parts of the acceptance, each in a process of its own with a time limit; finished ones are read from disk."""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Options, as_data, facts, quiet
from raptor.utils.files import read_json, write_json

ROOT = Path(__file__).parents[2]
CODE = ("raptor", "hydra_plugins", "configs", "benchmarks", "tests")
PARTS = {
    "ceilings": ("largest matrix product and copy", "speed"),
    "tests": ("tests with the mark gpu", "correctness"),
    "waiting": ("no synchronisation in a step", "correctness"),
    "graphs": ("graphs and recompilations of torch.compile", "correctness"),
    "losses": ("losses under bf16 against fp32", "correctness"),
    "equality": ("equality with the CPU", "correctness"),
    "determinism": ("the same weights twice, and after a kill", "correctness"),
    "steps": ("step rates of ViT-B/14 and ViT-L against the official step", "speed"),
    "memory": ("peak memory of a step", "speed"),
    "sources": ("sources of activations, pixel cache to the device", "feeds"),
    "probes": ("probes of ImageNet, ADE20K and NYUv2 shape", "feeds"),
    "extract": ("raptor.extract", "commands"),
    "dynamics": ("raptor.dynamics", "commands"),
}


def driver() -> str | None:
    """Return the version of the NVIDIA driver; None where nvidia-smi gives none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0] if found else None


def machine(options: Options) -> dict[str, Any]:
    """Collect what stands above the results: device, driver, versions, digest of the code."""
    about = facts(options) | {"kind": options.device.type, "driver": None, "code": code_digest()}
    if options.device.type == "cuda":
        properties = torch.cuda.get_device_properties(options.device)
        about |= {
            "driver": driver(),
            "cuda": torch.version.cuda,
            "memory_GB": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
        }
    return about


def code_digest() -> str:
    """Compute a digest of the code and configurations that decide a result, with or without git."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml", ".json", ".safetensors") and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def identity(about: dict[str, Any]) -> dict[str, Any]:
    """Return what a finished part must have been run with to count for this call."""
    versions = {name: about["versions"].get(name) for name in ("python", "torch", "timm", "pytorch-lightning")}
    return {key: about.get(key) for key in ("kind", "device", "driver", "code", "quick")} | versions


def passed_before(name: str, target: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """Read the result of a part that passed with the same code on the same device; None if there is none."""
    before = read_json(target / "parts" / f"{name}.json")
    same = before is not None and before.get("identity") == identity(about) and before.get("state") == "passed"
    return before if same else None


def run_part(name: str, options: Options, target: Path, about: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Run one part, or read its result if the same code passed it on the same device.

    Parameters
    ----------
    name
        One of :data:`PARTS`.
    options
        Device and size.
    target
        Folder of the results; logs and results of parts stand in ``parts/``.
    about
        The machine, of :func:`machine`.
    minutes
        Time limit.

    Returns
    -------
    dict
        ``identity``, ``state`` (``passed`` or ``failed``), ``error``, ``seconds``, ``checks``, ``rows``, ``figures``.
    """
    if before := passed_before(name, target, about):
        return before | {"skipped": True}
    file, made_with = target / "parts" / f"{name}.json", identity(about)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    # a process that was forked cannot use CUDA if its parent did; on the CPU a fork spares ten seconds of imports
    context = multiprocessing.get_context("spawn" if options.device.type == "cuda" else "forkserver")
    if options.device.type != "cuda":
        multiprocessing.set_forkserver_preload(["benchmarks.acceptance.preload"])
    process = context.Process(target=_work, args=(name, options, file, made_with))  # type: ignore[attr-defined]
    process.start()
    process.join(60 * minutes)
    if process.is_alive():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.join()
        _write(file, made_with, {"error": f"it took more than {minutes:g} minutes"}, 60 * minutes)
    found = read_json(file)
    if found is None:
        _write(file, made_with, {"error": f"its process ended with code {process.exitcode}"}, 0.0)
        found = read_json(file)
    assert found is not None
    return found


def _write(file: Path, made_with: dict[str, Any], result: dict[str, Any], seconds: float) -> None:
    checks = result.get("checks", [])
    failed = result.get("error") or any(not check["passed"] and not check["goal"] for check in checks)
    common = {"identity": made_with, "state": "failed" if failed else "passed", "seconds": round(seconds, 1)}
    write_json(file, {"error": None, "checks": [], "rows": [], "figures": {}} | result | common)


def _work(name: str, options: Options, file: Path, made_with: dict[str, Any]) -> None:
    """Run a part in this process, which does nothing else, and write its result."""
    os.setsid()
    with file.with_suffix(".log").open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    quiet()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            module = importlib.import_module(f"benchmarks.acceptance.{PARTS[name][1]}")
            outcome = getattr(module, name)(options, Path(folder))
            rows, checks = as_data(outcome.rows), [asdict(check) for check in outcome.checks]
            result = {"checks": checks, "rows": rows, "figures": outcome.figures}
        except BaseException as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"[:2000]}
        sys.stdout.flush()
        _write(file, made_with, result, time.monotonic() - begin)
        os.chdir(ROOT)
        shutil.rmtree(folder, ignore_errors=True)
