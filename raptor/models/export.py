"""Export of models to ONNX and torch.export, each checked against the model itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from raptor.errors import ConfigError
from raptor.files import write_aside
from raptor.models.backbone import Backbone

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # absolute, on tokens after the final norm, which are of order one
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
        import onnxruntime
        import onnxscript  # noqa: F401 (what torch exports with)
    except ImportError as error:
        raise ConfigError(f"export to ONNX needs the package {error.name}: pip install 'raptor-vit[export]'") from error

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
    found: list[float] = []

    def write(aside: Path) -> None:
        graph = program.model_proto
        notes = {"mean": model.spec.mean, "std": model.spec.std, "layers": model.num_layers}
        onnx.helper.set_model_props(graph, {key: str(value) for key, value in notes.items()})
        if graph.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
            raise ConfigError("a model of 2 GB and more does not fit into one ONNX file: export it by torch.export")
        onnx.save_model(graph, str(aside))
        session = onnxruntime.InferenceSession(str(aside), providers=["CPUExecutionProvider"])
        run = lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])  # noqa: E731
        found.append(_check(model, run, tolerance, "ONNX"))

    _write(path, write)
    return found[0]


def export_program(model: Backbone, path: str | Path, tolerance: float = TOLERANCE) -> float:
    """Write a model by ``torch.export``, to be read by ``torch.export.load``; see :func:`export_onnx`."""
    model = model.eval()
    program = torch.export.export(model, (_images(model, 2),), dynamic_shapes=({0: Dim("batch")},))
    difference = _check(model, program.module(), tolerance, "torch.export")

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            torch.export.save(program, file)

    _write(path, write)
    return difference


def _write(path: str | Path, write: Callable[[Path], object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_aside(Path(path), write)


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
        raise ConfigError(
            f"the {kind} export differs from the model by {difference:.2g}, more than {tolerance:g}: not written. A "
            "teacher with huge channels may need a larger tolerance"
        )
    return difference
