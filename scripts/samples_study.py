#!/usr/bin/env python3
"""How many images to which fidelity: samples_study.py digits | clip --weights FILE writes docs/results/samples_*.json.

Trains the same surrogate (k=3, same phases) by the paper's recipe and by method=fast with a fifth of the images and
less, then with each of the fast choices taken back. Runs stand in runs/samples_<teacher>/; called again, only what is
missing is trained. Every point is the end of a training of its own, its learning rate fallen to zero; of the paper's
recipe, which needs stage 1, half of the images go there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from raptor.reporting.figures import colours
from raptor.reporting.style import NEUTRAL, new_figure, save_figure
from raptor.utils.files import write_json

DOCS = Path(__file__).parents[1] / "docs"
PAPER = "recipe.lr=3e-4 recipe.layer_scale=1e-5"
TAKEN_BACK = {
    "random": "surrogate.start=random",
    "middle": "surrogate.start=middle",
    "plain loss": "task.loss._target_=raptor.tasks.distillation.losses.WeightedTokenMSE",
    "AdamW": "optimizer@task.optimizer=adamw",
    "no growth": "task.rollout_growth=0",
    "batch of 64": "data.batch_size=64",
}
NOTES = {
    "paper": "the paper's recipe: random blocks, AdamW 3e-4, LayerScale 1e-5, stage 1 and stage 2",
    "tuned": "the same with rate and LayerScale fit for so few steps",
    "fast": "method=fast, stage 2 alone",
}


@dataclass(frozen=True)
class Teacher:
    """What is run on one teacher.

    Attributes
    ----------
    overrides
        Teacher, data, phases.
    paper_steps
        Steps of 64 images in each stage of the paper's recipe, for each of its points.
    fast_images
        Images that ``method=fast`` gets, largest last.
    seeds, few
        Seeds of ``fast``, and of the others.
    adamw
        Learning rate for AdamW where it takes Muon's place.
    tuned
        Rate and LayerScale of the tuned arm; None leaves it out.
    taken_back
        Which of the fast choices are taken back, one by one.
    """

    overrides: str
    paper_steps: tuple[int, ...]
    fast_images: tuple[int, ...]
    seeds: int
    few: int
    adamw: float
    tuned: str | None
    taken_back: tuple[str, ...]


TEACHERS = {
    "digits": Teacher(
        "surrogate.boundaries=[4,8]",
        (62, 125, 250),
        (1600, 3200, 6400),
        3,
        3,
        3e-3,
        "recipe.lr=3e-3",
        tuple(TAKEN_BACK),
    ),
    "clip": Teacher(
        "teacher=clip_vitb16 data=fashion_mnist teacher.options.img_size=64 surrogate.boundaries=[4,9] "
        "trainer.limit_val_batches=2",
        (100,),
        (640, 1280),
        3,
        1,
        1e-4,
        None,  # docs/results/clip.md has such a run
        ("AdamW",),
    ),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    arm, images, seed
        What it is; ``images`` over both stages.
    overrides
        How it differs from the default job.
    after
        Name of the run of stage 1 that it continues from.
    """

    arm: str
    images: int
    seed: int
    overrides: str
    after: str | None = None

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.arm.replace(' ', '_')}-{self.images}-seed{self.seed}"


def plan(kind: str) -> tuple[list[Run], list[Run]]:
    """Runs of stage 1, then those that give points."""
    teacher = TEACHERS[kind]
    registers = "task.{}.registers=0" if kind == "clip" else ""
    first, second = [], []
    for arm, recipe in {"paper": PAPER, "tuned": teacher.tuned}.items():
        if recipe is None:
            continue
        for steps, seed in itertools.product(teacher.paper_steps, range(teacher.few)):
            both = f"{recipe} data.batch_size=64 trainer.max_steps={steps}"
            stage1 = f"task=distill {both} {registers.format('last_phase_loss')}"
            blocks = Run(f"{arm} stage 1", 64 * steps, seed, stage1)
            first.append(blocks)
            second.append(Run(arm, 128 * steps, seed, f"{both} {registers.format('loss')}", blocks.name))
    fast = f"method=fast {registers.format('loss')} trainer.val_check_interval=1000000"
    for images in reversed(teacher.fast_images):
        second += [Run("fast", images, s, f"{fast} trainer.max_steps={images // 16}") for s in range(teacher.seeds)]
    images = teacher.fast_images[-1]
    for arm in teacher.taken_back:
        steps = images // (64 if arm == "batch of 64" else 16)
        rate = f"recipe.lr={teacher.adamw}" if arm == "AdamW" else ""
        for seed in range(teacher.few):
            second.append(Run(arm, images, seed, f"{fast} trainer.max_steps={steps} {TAKEN_BACK[arm]} {rate}"))
    return first, second


def train(run: Run, kind: str, arguments: argparse.Namespace) -> None:
    """Train one run, unless it is finished."""
    study = arguments.runs / f"samples_{kind}"
    if (study / run.name / "result.json").is_file():
        return
    command = [sys.executable, "-m", "raptor.train", f"paths.runs={arguments.runs}", f"study=samples_{kind}"]
    command += [f"name={run.name}", f"seed={run.seed}", "trainer.enable_progress_bar=false"]
    command += shlex.split(f"{TEACHERS[kind].overrides} {run.overrides}")
    command += [f"teacher.weights={arguments.weights}"] if arguments.weights else []
    command += [f"task.blocks={study / run.after}"] if run.after else []
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if arguments.at_once > 1 else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{run.name} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    print(run.name, flush=True)


def r2(metrics: dict[str, Any]) -> float:
    """Mean over token types of the mean over layers."""
    return fmean(value for name, value in metrics.items() if name.startswith("val/r2_"))


def gather(runs: list[Run], folder: Path) -> dict[str, Any]:
    """Fidelity at the end of each run, by arm and images, and how long a run took."""
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        result = json.loads((folder / run.name / "result.json").read_text(encoding="utf-8"))
        points[run.arm][run.images].append(round(r2(result["metrics"]), 4))
        seconds[f"{run.arm} {run.images}"].append(result["seconds"])
    return {"r2": points, "seconds": {key: round(fmean(values)) for key, values in seconds.items()}}


def draw(found: dict[str, Any], kind: str) -> None:
    """Fidelity over images on the left, each fast choice taken back on the right; seeds as dots."""
    figure, (left, right) = new_figure(8.4, 3.6, columns=2)
    whole = {arm: by_images for arm, by_images in found["r2"].items() if arm in NOTES}
    for shade, (arm, by_images) in zip(colours(len(whole)), whole.items(), strict=True):
        images = sorted(by_images)
        left.plot(images, [fmean(by_images[n]) for n in images], marker="o", color=shade, label=arm)
        for n in images:
            left.scatter([n] * len(by_images[n]), by_images[n], s=10, color=shade, alpha=0.5)
        if arm != "fast":
            left.axhline(fmean(by_images[images[-1]]), color=shade, linestyle="--", linewidth=1)
    ticks = sorted({n for by_images in whole.values() for n in by_images})
    left.set_xscale("log")
    left.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45, fontsize=8)
    left.minorticks_off()
    left.set(xlabel="training images, both stages", ylabel="R2, mean over layers and token types")
    left.set_title(f"{kind}, k=3: images to fidelity (dashed: ends)")
    left.legend(fontsize=8)
    most = max(whole["fast"])
    arms = {"fast": whole["fast"], **{arm: points for arm, points in found["r2"].items() if arm not in NOTES}}
    for row, points in enumerate(arms.values()):
        right.scatter(points[most], [row] * len(points[most]), s=14, color=NEUTRAL if row else colours(3)[-1])
    right.set_yticks(range(len(arms)), [arm if arm == "fast" else f"fast, but {arm}" for arm in arms])
    right.invert_yaxis()
    right.set(xlabel="R2", title=f"each choice taken back, {most:,} images")
    save_figure(figure, DOCS / "figures" / f"samples_{kind}.png")


def main() -> None:
    """Train what is missing, write figures and numbers, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", choices=list(TEACHERS))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs stand (%(default)s)")
    parser.add_argument("--weights", help="file of the teacher, in place of what timm fetches")
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side, one thread each (%(default)s)")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs.absolute()
    kind = arguments.teacher
    first, second = plan(kind)
    for runs in (first, second):
        with ThreadPoolExecutor(arguments.at_once) as pool:
            list(pool.map(lambda run: train(run, kind, arguments), runs))
    found = gather(second, arguments.runs / f"samples_{kind}")
    found["arms"] = NOTES | {arm: f"fast, but {TAKEN_BACK[arm]}" for arm in TEACHERS[kind].taken_back}
    write_json(DOCS / "results" / f"samples_{kind}.json", found)
    draw(found, kind)
    for arm, by_images in found["r2"].items():
        for images, values in sorted(by_images.items()):
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            print(f"| {arm} | {images:,} | {fmean(values):.3f}{spread} | {len(values)} |")


if __name__ == "__main__":
    main()
