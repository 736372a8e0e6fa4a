"""Build probes from their options."""

from __future__ import annotations

from typing import Any

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.load import load_kind
from raptor.models.surrogate import Surrogate
from raptor.tasks.context import Context, check_reads_images
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.options import ProbeOptions


def build_probe(kind: type[Probe], options: ProbeOptions, context: Context, **more: Any) -> Probe:
    """Build a probe on the teacher, or on the model in the folder ``backbone``.

    A surrogate that was made at another image size is opened at the teacher's.

    Parameters
    ----------
    kind
        Class of the probe.
    options
        Its options.
    context
        What it is built from.
    **more
        Arguments of ``kind`` alone.

    Raises
    ------
    ConfigError
        If the backbone takes other images than the teacher.
    """
    check_reads_images(context, options.name)
    teacher = context.teacher
    model: Backbone = teacher
    if options.backbone is not None:
        model = load_kind(options.backbone, Backbone, "task.backbone")  # type: ignore[type-abstract]
    label = options.label
    if label is None:
        label = f"k={model.k}" if isinstance(model, Surrogate) else "teacher" if teacher.trained else "untrained"
    ours, theirs = ((m.input_shape, m.spec.mean, m.spec.std) for m in (model, teacher))
    if ours != theirs and isinstance(model, Surrogate):
        model = model.opened_as(teacher)
    elif ours != theirs:
        expected = f"a backbone for images (shape, mean, std) {theirs}, as the teacher takes; it takes {ours}"
        raise ConfigError.of("task.backbone", options.backbone, expected, "choose its own teacher by teacher=...")
    probed = {"label": label, "folder": options.backbone}
    arguments = options.arguments() | more
    return kind(backbone=model, data=context.data, source=probed, seed=context.seed, **arguments)
