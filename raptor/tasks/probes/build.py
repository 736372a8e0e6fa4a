"""Build probes from their options."""

from __future__ import annotations

from typing import Any

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.load import load_kind
from raptor.models.rival import Rival
from raptor.models.surrogate import Surrogate
from raptor.tasks.context import Context, check_classes, check_reads_images
from raptor.tasks.probes.base import Probe


def build_probe(
    kind: type[Probe], context: Context, folder: str | None, label: str | None, arguments: dict[str, Any]
) -> Probe:
    """Build a probe on the teacher, or on the model in a folder; see :func:`open_backbone`.

    Parameters
    ----------
    kind
        Class of the probe.
    context, folder, label
        As for :func:`open_backbone`.
    arguments
        Of ``kind``, as its options give them.
    """
    check_reads_images(context, arguments["name"])
    if kind.target in ("class", "labels") and context.data.target == kind.target:
        check_classes(context.data, arguments["name"])
    model, source = open_backbone(context, folder, label)
    return kind(backbone=model, data=context.data, source=source, seed=context.seed, **arguments)


def open_backbone(context: Context, folder: str | None, label: str | None) -> tuple[Backbone, dict[str, Any]]:
    """Return the teacher, or the model in a folder, and its label and folder.

    A surrogate that was made at another image size is opened at the teacher's.

    Parameters
    ----------
    context
        What the task is built from.
    folder
        Run folder of the backbone; None takes the teacher.
    label
        Name in tables; None makes one.

    Raises
    ------
    ConfigError
        If the backbone takes other images than the teacher.
    """
    teacher = context.teacher
    model: Backbone = teacher
    if folder is not None:
        model = load_kind(folder, Backbone, "task.backbone")  # type: ignore[type-abstract]
    if label is None:
        label = "teacher" if teacher.trained else "untrained"
        if isinstance(model, Surrogate | Rival):
            label = f"k={model.k}" + (f", {model.label}" if isinstance(model, Rival) else "")
    ours, theirs = ((m.input_shape, m.spec.mean, m.spec.std) for m in (model, teacher))
    if ours != theirs and isinstance(model, Surrogate):
        model = model.at_resolution_of(teacher)
    elif ours != theirs:
        expected = f"a backbone for images (shape, mean, std) {theirs}, as the teacher takes; it takes {ours}"
        raise ConfigError.of("task.backbone", folder, expected, "choose its own teacher by teacher=...")
    return model, {"label": label, "folder": folder}
