"""``python -m raptor.dynamics``: how tokens move through the depth of a teacher and its surrogates."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from functools import partial
from typing import Any

from omegaconf import DictConfig

from raptor.cli.command import command
from raptor.runs.folder import RunFolder
from raptor.runs.identity import check_inputs, identity, inputs
from raptor.runs.migration import roots
from raptor.studies.dynamics.options import DynamicsOptions
from raptor.utils.devices import default_device

log = logging.getLogger("raptor.dynamics")
ARRAYS = 2  # version of the names and meanings of the arrays


def folder(options: DynamicsOptions, config: DictConfig) -> RunFolder:
    """Make the run folder of a configuration."""
    return RunFolder(options, config, "dynamics", former_name="dynamics")


@command(DynamicsOptions, folder)
def main(options: DynamicsOptions, run: RunFolder) -> None:
    """Measure, or say that it is done."""
    result = run.result()
    if result is None:
        check_inputs(options)
        with run.recording():
            result = measure(options, run)
    for finding in result["findings"]:
        log.info("%s (%s): %s", finding["finding"], finding["tokens"], finding["verdict"])
    log.info("%s: report.html, figures/, networks/*.npz, result.json", run)


def measure(options: DynamicsOptions, run: RunFolder) -> dict[str, Any]:
    """Measure all networks, then write numbers, figures and the page."""
    import torch

    from raptor.models.surrogate import Surrogate
    from raptor.studies.dynamics.arrays import file_name, read_arrays, write_arrays
    from raptor.studies.dynamics.batches import ImageBatches
    from raptor.studies.dynamics.measure import Dynamics
    from raptor.studies.dynamics.networks import networks_of
    from raptor.studies.dynamics.page import write_dynamics

    begin = time.monotonic()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.allow_tf32 = False  # its convolutions would round pixels to ten bits, others than a CPU's
    networks = networks_of(options.teacher, options.surrogates, untrained=options.untrained)
    teacher = next(iter(networks.values()))
    measured = options.for_network(teacher)
    data = options.data.build()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std, seed=options.seed)
    device = default_device()
    dtype = {32: torch.float32, 64: torch.float64}[options.precision]
    images = ImageBatches(data, options.split, options.images, options.batch_size, device, dtype)
    facts = {
        "teacher": getattr(options.teacher, "name", teacher.spec.name),
        "weights": getattr(options.teacher, "weights", None),
        "data": data.name,
        "split": options.split,
        "images": len(images),
        "trained": teacher.trained,
        "tokens": list(measured.tokens),
        "given": options.boundaries is not None,
    }
    log.info("%s on %d images of %s: %s", facts["teacher"], len(images), data.name, ", ".join(networks))

    made_by = _digest(options)
    boundaries = options.boundaries
    by_network: dict[str, dict[str, Any]] = {}
    for model in networks.values():
        model.to(device, dtype)
    for index, (name, model) in enumerate(networks.items()):
        path = run.path / "networks" / f"{file_name(name)}.npz"
        arrays = read_arrays(path, made_by)
        if arrays is None:
            measures = Dynamics(model, images, measured, partial(_say, run, index, len(networks)))
            arrays = measures.measure(name, boundaries, teacher if isinstance(model, Surrogate) else None)
            write_arrays(path, arrays, made_by)
        else:
            log.info("%s: measured before", name)
        if boundaries is None:
            boundaries = arrays["boundaries"].tolist()
        by_network[name] = arrays
    summary = write_dynamics(run.path, by_network, facts)
    return run.finish(
        {
            "task": "dynamics",
            "model": {},
            "seed": options.seed,
            "source": facts,
            "boundaries": boundaries,
            **summary,
            "seconds": round(time.monotonic() - begin, 1),
        }
    )


def _say(run: RunFolder, before: int, networks: int, share: float) -> None:
    run.update(step=round(1000 * (before + share) / networks), total=1000)


def _digest(options: DynamicsOptions) -> str:
    """Compute the digest of what networks measured before must have been measured with."""
    made_of = {"config": identity(options, roots(options)), "inputs": inputs(options), "arrays": ARRAYS}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


if __name__ == "__main__":
    main()
