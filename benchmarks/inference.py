"""Compare a surrogate with its teacher: latency, throughput, size, bf16, int8, early exit.

Memory of a forward is in benchmarks/memory.py. Baselines run in the same precision, by the same runtime, but for int8.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

import raptor
from benchmarks.measure import Options, Row, faster, in_turn, more
from benchmarks.step import new_blocks, random_teacher
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.export import export_int8, export_onnx
from raptor.models.io import save
from raptor.models.surrogate import Surrogate
from raptor.partition.phases import phases_of

BOUNDARIES = [7, 10]


def size(folder: Path) -> float:
    """Measure the megabytes of a saved model."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def run(options: Options) -> list[Row]:
    """Measure all rows of a k=3 surrogate with the paper's block (SwiGLU) and the teacher's (GELU)."""
    teacher = random_teacher(options)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        models: dict[str, Backbone] = {"teacher": teacher}
        save(teacher, Path(name) / "teacher", {})
        for mlp in ("swiglu", "gelu"):
            blocks = new_blocks(teacher, phases_of(BOUNDARIES, teacher.num_layers), mlp=mlp)
            save(Surrogate.of_teacher(teacher, blocks), Path(name) / mlp, {})
            models[mlp] = raptor.load(Path(name) / mlp).to(options.device).eval()
        rows += _sizes(models, Path(name))
    for batch in [1, 2] if options.quick else [1, 8, 32]:
        rows += _throughput(models, batch, options)
    if options.device.type == "cpu" and importlib.util.find_spec("onnxruntime"):
        rows += _onnx(models, 8, options)
    return rows


def _sizes(models: dict[str, Backbone], folder: Path) -> list[Row]:
    rows = []
    parameters = {kind: sum(p.numel() for p in model.parameters()) / 1e6 for kind, model in models.items()}
    for mlp in ("swiglu", "gelu"):
        ours, theirs = parameters[mlp], parameters["teacher"]
        rows.append(Row(f"k=3 {mlp}, parameters", "teacher", ours, theirs, "million", theirs / ours))
        a, b = size(folder / mlp), size(folder / "teacher")
        rows.append(Row(f"k=3 {mlp}, on disk", "teacher", a, b, "MB", b / a))
    return rows


def _throughput(models: dict[str, Backbone], batch: int, options: Options) -> list[Row]:
    images = torch.randn(batch, *models["teacher"].input_shape, device=options.device)

    def of(model: Backbone, layer: int | None = None, *, bf16: bool = False) -> Callable[[], object]:
        @torch.inference_mode()
        def call() -> object:
            with torch.autocast(options.device.type, torch.bfloat16, enabled=bf16):
                return model(images, layer)

        return call

    runs = {"teacher": of(models["teacher"]), "teacher, bf16": of(models["teacher"], bf16=True)}
    runs |= {f"k=3 {mlp}": of(models[mlp]) for mlp in ("swiglu", "gelu")}
    runs |= {f"k=3 gelu, out at layer {layer}": of(models["gelu"], layer) for layer in BOUNDARIES}
    runs |= {"k=3 gelu, bf16": of(models["gelu"], bf16=True)}
    return _rows(runs, batch, options, {name: "teacher, bf16" if name.endswith("bf16") else "teacher" for name in runs})


def _rows(
    runs: dict[str, Callable[[], object]], batch: int, options: Options, baselines: dict[str, str], note: str = ""
) -> list[Row]:
    """Make rows of latency for single images, of throughput for batches."""
    times, rows = in_turn(runs, options), []
    for name, baseline in baselines.items():
        if name != baseline:
            what = f"{name}, batch {batch}"
            row = faster(what, name, baseline, times) if batch == 1 else more(what, name, baseline, times, batch)
            rows.append(replace(row, note=note))
    return rows


def _onnx(models: dict[str, Backbone], batch: int, options: Options) -> list[Row]:
    """Compare the int8 GELU surrogate with float32 surrogate and teacher, all in onnxruntime."""
    import onnxruntime

    images = torch.randn(batch, *models["teacher"].input_shape).numpy()
    with tempfile.TemporaryDirectory() as name:
        files = {kind: Path(name) / f"{kind}.onnx" for kind in ("teacher", "k=3", "k=3, int8")}
        export_onnx(models["teacher"], files["teacher"], tolerance=1e-2)
        export_onnx(models["gelu"], files["k=3"], tolerance=1e-2)
        try:
            note = f"cosine of tokens {export_int8(models['gelu'], files['k=3, int8']):.4f}"
        except ConfigError as error:
            return [Row("k=3, int8", "k=3", float("nan"), float("nan"), "", float("nan"), str(error))]
        sizes = {kind: file.stat().st_size / 1e6 for kind, file in files.items()}
        sessions = {
            k: onnxruntime.InferenceSession(str(f), providers=["CPUExecutionProvider"]) for k, f in files.items()
        }
        runs: dict[str, Callable[[], object]] = {
            f"ONNX {kind}": functools.partial(session.run, None, {"images": images})
            for kind, session in sessions.items()
        }
        baselines = {"ONNX k=3": "ONNX teacher", "ONNX k=3, int8": "ONNX teacher"}
        rows = _rows(runs, batch, options, baselines, note)
    ratio = sizes["k=3"] / sizes["k=3, int8"]
    return [*rows, Row("ONNX k=3, int8, on disk", "ONNX k=3", sizes["k=3, int8"], sizes["k=3"], "MB", ratio, note)]
