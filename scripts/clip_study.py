#!/usr/bin/env python3
"""Probe what experiment=clip/* has trained, and draw it: clip_study.py RUNS WEIGHTS writes docs/results/clip.json.

RUNS is the folder of the study (runs/clip), WEIGHTS the teacher's file. The probe is logistic regression on the
standardised [cls, mean patch] of frozen final tokens: it has no seed and no steps to choose. Backbones: the teacher,
each surrogate after stage 1, at its snapshots and at the end of stage 2, and the surrogate with untrained blocks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import Subset

import raptor
from raptor.data.fashion_mnist import FashionMNIST
from raptor.models.backbone import Backbone
from raptor.models.pretrained import build_teacher
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import freeze
from raptor.reporting.figures import colours
from raptor.reporting.style import NEUTRAL, TYPE_COLOURS, new_figure, save_figure
from raptor.tasks.distillation.fidelity import Fidelity
from raptor.utils.files import write_json

DOCS = Path(__file__).parents[1] / "docs"
KS, TRAIN, TEST, VALIDATED, SIZE, BATCH = (2, 3, 4), 2000, 1000, 512, 64, 32
TEACHER = "vit_base_patch16_clip_quickgelu_224.openai"


def features(backbone: Backbone, data: FashionMNIST, images: Any, note: str) -> tuple[np.ndarray, np.ndarray]:
    """Features ``(n, 2D)`` and labels of images."""
    parts, labels = [], []
    with torch.no_grad():
        for batch, batch_labels in track(data.loader(images, batch_size=BATCH), note, transient=True):
            parts.append(backbone.layout.features(backbone(data.normalize(batch))))
            labels.append(batch_labels)
    return torch.cat(parts).numpy(), torch.cat(labels).numpy()


def probe(backbone: Backbone, data: FashionMNIST, note: str) -> float:
    """Accuracy of the probe on the first test images."""
    order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(0))
    train = features(freeze(backbone), data, Subset(data.train_images, order[:TRAIN].tolist()), note)  # type: ignore[arg-type]
    test = features(backbone, data, Subset(data.val_images, range(TEST)), note)  # type: ignore[arg-type]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01))
    return float(classifier.fit(*train).score(*test))


def start_fidelity(model: Surrogate, teacher: Backbone, data: FashionMNIST) -> dict[str, list[float]]:
    """R2 of every layer by token type, on the images that the training was validated on."""
    scores = Fidelity(teacher.layout, teacher.num_layers, teacher.width)
    images: Any = Subset(data.val_images, range(VALIDATED))  # type: ignore[arg-type]
    with torch.no_grad():
        for batch, _ in data.loader(images, batch_size=BATCH):
            x = teacher.embed(data.normalize(batch))
            scores.update(list(model.steps(x)), list(teacher.steps(x)))
    return scores.compute().predictions.curves["r2"]


def channel_energy(teacher: Backbone, data: FashionMNIST) -> dict[str, dict[str, list[float]]]:
    """For each layer, by token type: mean squared norm of a token, and the share of variance in the largest channel."""
    images = torch.stack([data.val_images[i][0] for i in range(128)])
    with torch.no_grad():
        acts_BLND = teacher.rollout(teacher.embed(data.normalize(images)))
    energy: dict[str, dict[str, list[float]]] = {}
    for kind in teacher.layout.types:
        x_LnD = teacher.layout.select(acts_BLND, kind).transpose(0, 1).flatten(1, 2)
        spread_LD = (x_LnD - x_LnD.mean((1, 2), keepdim=True)).square().mean(1)
        energy[kind] = {
            "squared_norm": x_LnD.square().sum(2).mean(1).tolist(),
            "largest_channel": (spread_LD.amax(1) / spread_LD.sum(1)).tolist(),
        }
    return energy


def backbones(runs: Path, k: int) -> dict[str, Surrogate]:
    """Surrogates of one k by what they have seen: ``untrained``, ``stage 1`` or the stage-2 step."""
    final = raptor.load(runs / f"surrogate-k{k}-seed0")
    torch.manual_seed(0)
    untrained = Surrogate.from_config(final.to_config())
    untrained.shell.load_state_dict(final.shell.state_dict())
    assembled = Surrogate.from_config(final.to_config())
    assembled.shell.load_state_dict(final.shell.state_dict())
    stage1 = raptor.load(runs / "blocks-seed0")
    for block in assembled.blocks:
        block.load_state_dict(stage1.of(block.phase).state_dict())
    snapshots = sorted((runs / f"surrogate-k{k}-seed0" / "snapshots").iterdir(), key=lambda p: int(p.name))
    steps = json.loads((runs / f"surrogate-k{k}-seed0" / "result.json").read_text(encoding="utf-8"))["steps"]
    return {"untrained": untrained, "0": assembled} | {p.name: raptor.load(p) for p in snapshots} | {str(steps): final}


def draw(study: dict[str, Any]) -> None:
    """Curves of accuracy and R2 over training images, and R2 over layers."""
    figure, axes = new_figure(9.6, 3.2, columns=3)
    for k, colour in zip(KS, colours(len(KS)), strict=True):
        points = study["surrogates"][str(k)]
        probes = sorted((int(step), share) for step, share in points["probe_share"].items() if step != "untrained")
        axes[0].plot(
            [study["batch"] * s for s, _ in probes], [100 * y for _, y in probes], "o-", color=colour, label=f"k={k}"
        )
        for ax, kind in zip(axes[1:], ("cls", "patches"), strict=True):
            curve = points[f"r2_{kind}_by_step"]
            ax.plot(
                [study["batch"] * s for s, _ in curve], [y for _, y in curve], "o-", ms=3, color=colour, label=f"k={k}"
            )
            ax.set_ylabel(f"R2 of {kind}, mean over layers")
    untrained = 100 * float(np.mean([study["surrogates"][str(k)]["probe_share"]["untrained"] for k in KS]))
    axes[0].axhline(untrained, color=NEUTRAL, ls="--", lw=1, label="untrained blocks (mean)")
    axes[0].set_ylabel("probe accuracy, % of the teacher's")
    for ax in axes:
        ax.set_xlabel("training images of stage 2")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2 if ax is axes[0] else 3)
    save_figure(figure, DOCS / "figures" / "clip_curves")

    points = [study["surrogates"][str(k)] for k in KS]
    values = [v for p in points for kept in ("r2_by_layer", "r2_stage1") for curve in p[kept].values() for v in curve]
    lowest = max(-0.5, min(0.4, min(values) - 0.05))
    figure, axes = new_figure(9.6, 3.0, columns=len(KS))
    for k, ax in zip(KS, axes, strict=True):
        points = study["surrogates"][str(k)]
        for kind, values in points["r2_by_layer"].items():
            x = range(1, len(values) + 1)
            ax.plot(x, values, "o-", ms=3, color=TYPE_COLOURS[kind], label=kind)
            ax.plot(x, points["r2_stage1"][kind], "--", lw=1, color=TYPE_COLOURS[kind], label=f"{kind}, after stage 1")
        for boundary in points["boundaries"]:
            ax.axvline(boundary + 0.5, color=NEUTRAL, ls=":", lw=1)
        ax.set(title=f"k={k}", xlabel="layer", ylim=(lowest, 1.0))
    axes[0].set_ylabel("R2")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    save_figure(figure, DOCS / "figures" / "clip_layers")
    for stem in ("clip_curves", "clip_layers"):
        (DOCS / "figures" / f"{stem}.pdf").unlink()


def main() -> None:
    """Probe every backbone, gather the curves, write numbers and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("weights", type=Path)
    arguments = parser.parse_args()
    teacher = build_teacher(TEACHER, {"num_classes": 512, "img_size": SIZE}, weights=arguments.weights)
    data = FashionMNIST(root=None, download="data")
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    accuracy = probe(teacher, data, "teacher")
    study: dict[str, Any] = {"teacher_probe": accuracy, "probe_images": [TRAIN, TEST], "batch": 32}
    study["channels"] = channel_energy(freeze(teacher), data)
    study["surrogates"] = {}
    for k in KS:
        result = json.loads((arguments.runs / f"surrogate-k{k}-seed0" / "result.json").read_text(encoding="utf-8"))
        models = backbones(arguments.runs, k)
        probes = {step: probe(model, data, f"k={k}, {step}") for step, model in models.items()}
        start = {step: start_fidelity(models[step], teacher, data) for step in ("untrained", "0")}
        (by_layer,) = result["layers"].values()
        study["surrogates"][str(k)] = {
            "boundaries": result["model"]["boundaries"],
            "probe": probes,
            "probe_share": {step: value / accuracy for step, value in probes.items()},
            "r2_untrained": start["untrained"],
            "r2_stage1": start["0"],
            **{
                f"r2_{t}_by_step": [[0, fmean(start["0"][t])]]
                + [[s + 1, v] for s, v in result["history"][f"val/r2_{t}"]]
                for t in by_layer["r2"]
            },
            "r2_by_layer": by_layer["r2"],
            "seconds": result["seconds"],
        }
        write_json(DOCS / "results" / "clip.json", study)
    draw(study)


if __name__ == "__main__":
    main()
