"""Export of models to ONNX and torch.export, each checked against the model itself."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.utils.files import atomic_write

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # absolute, on tokens after the final norm, which are of order one
LEAST_COSINE = 0.98
CHECKED_BATCHES = (1, 3)


def export_onnx(model: Backbone, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a model as ONNX: normalised images ``(B, C, H, W)`` to final tokens ``(B, N, D)``, B free.

    Parameters
    ----------
    model
        Teacher or surrogate, on the CPU.
    path
        The ``.onnx`` file; weights included.
    tolerance
        Largest difference to the model's own output that is accepted.

    Returns
    -------
    float
        The largest difference found, running the file in onnxruntime on random images.

    Raises
    ------
    ConfigError
        If onnx, onnxscript or onnxruntime is missing, or the difference is larger; no file is then left.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 (what torch exports with)
    except ImportError as error:
        fix = "pip install 'raptor-vit[export]'"
        raise ConfigError.of("format", "onnx", f"the package {error.name} to be installed", fix) from error

    model = model.eval()
    program = torch.onnx.export(
        model,
        (_images(model, 2),),
        input_names=["images"],
        output_names=["tokens"],
        dynamic_shapes=({0: Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    differences: list[float] = []

    def write(tmp_path: Path) -> None:
        graph = program.model_proto
        notes = {"mean": model.spec.mean, "std": model.spec.std, "layers": model.num_layers}
        onnx.helper.set_model_props(graph, {key: str(value) for key, value in notes.items()})
        if graph.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
            raise ConfigError.of("format", "onnx", "a model of less than 2 GB", "export it by torch.export")
        onnx.save_model(graph, str(tmp_path))
        differences.append(_check(model, _onnx_run(tmp_path), tolerance, "ONNX"))

    _write(path, write)
    return differences[0]


def export_int8(model: Backbone, path: str | Path, least_cosine: float = LEAST_COSINE) -> float:
    """Write a model as ONNX with its matrices in 8 bits, activations quantised as they come (onnxruntime's own way).

    Parameters
    ----------
    model
        Teacher or surrogate, on the CPU.
    path
        The ``.onnx`` file, about a quarter of the float32 one.
    least_cosine
        Mean cosine between its final tokens and the model's own, of the token type that comes off worst, below which it
        is refused.

    Returns
    -------
    float
        That cosine, on random images.

    Raises
    ------
    ConfigError
        As :func:`export_onnx`, or if the cosine is too low; no file is then left.
    """
    cosines: list[float] = []

    def write(tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            plain, folded = Path(folder) / "plain.onnx", Path(folder) / "folded.onnx"
            export_onnx(model, plain, tolerance=float("inf"))
            from onnxruntime.quantization import QuantType, quantize_dynamic
            from onnxruntime.quantization.shape_inference import quant_pre_process

            # weights that the exporter transposes in the graph become constants, which alone are quantised
            quant_pre_process(plain, folded, skip_symbolic_shape=True)
            # per_channel: rows of a weight differ by far more than its columns
            quantize_dynamic(folded, tmp_path, weight_type=QuantType.QInt8, per_channel=True)
        run, images = _onnx_run(tmp_path), _images(model, CHECKED_BATCHES[-1])
        with torch.no_grad():
            cosine_BN = nn.functional.cosine_similarity(run(images), model(images), dim=-1)
        of_types = [model.layout.select(cosine_BN[..., None], kind).mean() for kind in model.layout.types]
        cosines.append(float(min(of_types)))
        if not cosines[0] >= least_cosine:
            expected = (
                f"tokens of a mean cosine >= {least_cosine:g} to the model's own (it is {cosines[0]:.4f}: not written)"
            )
            raise ConfigError.of("int8", True, expected, "export without int8, or accept less")

    _write(path, write)
    return cosines[0]


def _onnx_run(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def export_program(model: Backbone, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a model by ``torch.export``, to be read by ``torch.export.load``; see :func:`export_onnx`."""
    model = model.eval()
    program = torch.export.export(model, (_images(model, 2),), dynamic_shapes=({0: Dim("batch")},))
    difference = _check(model, program.module(), tolerance, "torch.export")

    def write(tmp_path: Path) -> None:
        with tmp_path.open("wb") as file:
            torch.export.save(program, file)

    _write(path, write)
    return difference


def _write(path: str | Path, write: Callable[[Path], object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(Path(path), write)


def _images(model: Backbone, B: int) -> Tensor:
    generator = torch.Generator().manual_seed(B)
    dtype = next(model.parameters()).dtype
    return torch.randn(B, *model.input_shape, generator=generator).to(dtype)


@torch.no_grad()
def _check(model: nn.Module, run: Any, tolerance: float, kind: str) -> float:
    assert isinstance(model, Backbone)
    batches = [_images(model, B) for B in CHECKED_BATCHES]
    difference = max(float((run(x) - model(x)).abs().max()) for x in batches)
    if not difference <= tolerance:
        expected = f"an export that differs by at most {tolerance:g} (it does by {difference:.2g}: not written)"
        fix = "raise the tolerance, as a teacher with huge channels may need"
        raise ConfigError.of("format", kind, expected, fix)
    return difference
