"""Parts that run commands of the package on the device."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.acceptance.outcome import Outcome
from benchmarks.configuration import command
from benchmarks.feed import prepare
from benchmarks.measure import Options
from raptor.data.store.reading import Reader
from raptor.utils.files import read_json

SAMPLES = 32


def extract(options: Options, folder: Path) -> Outcome:
    """Store layers on the device and on the CPU, verify them, compare them; then measure ViT-B."""
    outcome, stores, names = Outcome(), {}, ["layer00", "layer06", "layer12"]
    for device in ("cpu", options.device.type):
        store = folder / device
        common = [f"paths.runs={folder}/runs", f"store={store}", "layers=[0,6,12]"]
        command("extract", *common, f"device={device}")
        command("extract", *common, "verify=true")
        stores[device] = Reader(store).read(list(range(SAMPLES)), names)
    for name, on_cpu, there in zip(names, stores["cpu"], stores[options.device.type], strict=True):
        error = float((there.float() - on_cpu.float()).norm() / on_cpu.float().norm())
        outcome.check(f"{name}, relative difference to the CPU", error <= 2e-3, f"{error:.2e}", "at most 2e-3 (TF32)")
    if not options.quick:
        outcome.figures["ViT-B/14 at 224 pixels, 13 layers in bf16, images/s"] = _rate(options, folder)
    return outcome


def _rate(options: Options, folder: Path) -> float:
    """Measure images per second of a large store, less what a store of two images takes."""
    images, batch, workers = (512, 64, 8) if options.device.type == "cuda" else (16, 4, 1)
    common = prepare(folder, options, images, batch=batch, workers=workers)
    common += ["dtype=bfloat16", "precision=bf16-mixed", f"device={options.device.type}"]
    seconds = []
    for split in ("val", "train"):
        begin = time.perf_counter()
        command("extract", *common, f"splits={split}", f"store={folder}/timed-{split}")
        seconds.append(time.perf_counter() - begin)
    return (images - 2) / (seconds[1] - seconds[0])


def dynamics(options: Options, folder: Path) -> Outcome:
    """Measure the dynamics of the digits ViT by the command, on the device that it chooses."""
    outcome, images = Outcome(), 24 if options.quick else 200
    few = ["perturbation.images=2", "jacobian.images=1", "jacobian.values=2", "untrained=false"]
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    command("dynamics", f"paths.runs={folder}", f"images={images}", "name=d", *few)
    outcome.figures["seconds"] = time.perf_counter() - begin
    if options.device.type == "cuda":
        outcome.figures["peak_GB"] = torch.cuda.max_memory_allocated() / 1e9
        used = outcome.figures["peak_GB"] > 0.0
        outcome.check("the GPU was used", used, f"{outcome.figures['peak_GB']:.3f} GB", "above 0")
    run = folder / "default" / "d"
    result = read_json(run / "result.json") or {}
    outcome.check("findings", len(result.get("findings", [])) > 0, len(result.get("findings", [])), "some")
    arrays = [np.load(file) for file in (run / "networks").glob("*.npz")]
    broken = [
        key for found in arrays for key in found if found[key].dtype.kind == "f" and not np.isfinite(found[key]).any()
    ]
    outcome.check("arrays with numbers", bool(arrays) and not broken, ", ".join(broken) or "all", "all")
    return outcome
