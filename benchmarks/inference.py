"""A surrogate against its teacher: latency and throughput by batch, memory, size on disk, bf16 and int8, early exit."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import raptor
from benchmarks.measure import Options, Row, in_turn, more
from benchmarks.step import new_blocks, random_teacher
from raptor.models.backbone import Backbone
from raptor.models.export import export_int8, export_onnx
from raptor.models.io import save
from raptor.models.surrogate import Surrogate
from raptor.partition.phases import phases_of

BOUNDARIES = [7, 10]


def size(folder: Path) -> float:
    """Megabytes of a saved model."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def run(options: Options) -> list[Row]:
    """All rows, of a k=3 surrogate in the paper's shape (SwiGLU) and in the teacher's (GELU)."""
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


def _onnx(models: dict[str, Backbone], batch: int, options: Options) -> list[Row]:
    """The GELU surrogate by onnxruntime, in float32 and in 8 bits."""
    import onnxruntime

    images, rows = torch.randn(batch, *models["teacher"].input_shape), []
    runs: dict[str, Callable[[], object]] = {"teacher": lambda: models["teacher"](images)}
    notes, sizes = {}, {}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode(False):
        for kind, export in (("fp32", export_onnx), ("int8", export_int8)):
            file = Path(name) / f"{kind}.onnx"
            found = export(models["gelu"], file)
            notes[kind] = f"tokens at most {found:.0e} off" if kind == "fp32" else f"mean cosine of tokens {found:.4f}"
            sizes[kind] = file.stat().st_size / 1e6
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            runs[f"k=3 gelu, ONNX {kind}"] = functools.partial(session.run, None, {"images": images.numpy()})
        with torch.no_grad():
            times = in_turn(runs, options)
    for kind, note in notes.items():
        name = f"k=3 gelu, ONNX {kind}"
        rows.append(more(f"{name}, batch {batch}", name, "teacher", times, batch, note))
    rows.append(
        Row(
            "k=3 gelu, ONNX int8, on disk",
            "ONNX fp32",
            sizes["int8"],
            sizes["fp32"],
            "MB",
            sizes["fp32"] / sizes["int8"],
        )
    )
    return rows


def _throughput(models: dict[str, Backbone], batch: int, options: Options) -> list[Row]:
    images = torch.randn(batch, *models["teacher"].input_shape, device=options.device)

    def of(model: Backbone, layer: int | None = None, bf16: bool = False) -> Callable[[], object]:
        @torch.inference_mode()
        def call() -> object:
            with torch.autocast(options.device.type, torch.bfloat16, enabled=bf16):
                return model(images, layer)

        return call

    runs = {"teacher": of(models["teacher"])}
    runs |= {f"k=3 {mlp}": of(models[mlp]) for mlp in ("swiglu", "gelu")}
    runs |= {f"k=3 gelu, out at layer {layer}": of(models["gelu"], layer) for layer in BOUNDARIES}
    runs |= {"k=3 gelu, bf16 autocast": of(models["gelu"], bf16=True)}
    times = in_turn(runs, options)
    return [more(f"{name}, batch {batch}", name, "teacher", times, batch) for name in runs if name != "teacher"]
