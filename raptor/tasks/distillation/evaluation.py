"""Evaluate students on held-out images: fidelity by layer, floors, and top-1 through the rest of the teacher.

Shapes: B images, N tokens, D width, L layers of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from raptor.data.module import ImageData
from raptor.data.sources import Online
from raptor.errors import ModelFileError
from raptor.models.costs import block_flops
from raptor.models.rival import Rival
from raptor.models.surrogate import PhaseBlock, PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.models.tied import PartitionEnsemble, TiedDepth
from raptor.tasks.base import Task
from raptor.tasks.distillation.fidelity import Curves, StudentScores
from raptor.tasks.distillation.floors import (
    HEADLINE,
    AffineFit,
    AffineMaps,
    FloorScores,
    FloorSettings,
    above_floor,
    cache_file,
)
from raptor.utils.terminal import track

Student = PhaseBlock | Surrogate | Rival | TiedDepth


class StudentEvaluation(Task):
    """Evaluate the students of a teacher, and describe them in results.

    A student is distilled as one unit: the block of a phase in stage 1, the whole surrogate in stage 2.

    Parameters
    ----------
    teacher
        Frozen here.
    model
        Blocks (stage 1), a surrogate (stage 2) or a rival, or several ways to tie depth: each a set of students.
    top1
        Whether the labels are classes of the teacher's head, so that top-1 is defined.
    about
        Plain data to keep with the results (how the phases were chosen).
    floors
        How to fit the affine floor; None scores no floors. Floors are scored in the last validation.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.
    """

    def __init__(
        self,
        teacher: Teacher,
        model: PhaseBlocks | Surrogate | Rival | PartitionEnsemble,
        *,
        top1: bool = True,
        about: dict[str, Any] | None = None,
        floors: FloorSettings | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher, self.model = freeze(teacher), model
        self.layout, self.about, self.floors = teacher.layout, about or {}, floors
        num_classes = teacher.num_classes if top1 else None
        self.scores = nn.ModuleList(
            StudentScores(self.layout, s.phase.end - s.phase.start, teacher.width, num_classes)
            for s in model.students()
        )
        self.teacher_top1 = MulticlassAccuracy(num_classes, average="micro") if num_classes else None
        self.floor_scores: FloorScores | None = None
        self._curves: dict[str, Curves] = {}
        self._floors: dict[str, dict[str, Curves]] = {}
        self._floor_official: dict[str, dict[str, float]] = {}

    @property
    def students(self) -> list[Student]:
        """The students of the model."""
        return list(self.model.students())

    def _scored_students(self) -> list[tuple[Student, StudentScores]]:
        return list(zip(self.students, cast(Iterable[StudentScores], self.scores), strict=True))

    @property
    def frozen(self) -> nn.Module:
        """The teacher."""
        return self.teacher

    @property
    def product(self) -> nn.Module:
        """The blocks, or the surrogate."""
        return self.model

    def _prefix(self, student: Student) -> str:
        return "" if student is self.model else f"{student.name}/"

    def is_last_validation(self) -> bool:
        """Whether this validation makes the results, after the training."""
        return self.trainer.state.fn == "validate"

    def on_validation_start(self) -> None:
        """Fit the affine floor before the last validation."""
        if self.floors is not None and self.is_last_validation():
            affine = self._affine_maps(cast(ImageData, cast(Any, self.trainer).datamodule), self.floors)
            starts = {student.name: phase_pairs(student) for student in self.students}
            scores = FloorScores(self.layout, self.teacher.num_layers, self.teacher.width, affine, starts)
            self.floor_scores = scores.to(self.device)

    def _affine_maps(self, data: ImageData, settings: FloorSettings) -> AffineMaps:
        file = cache_file(settings, data, self._frozen_sha256, str(self.trainer.precision))
        if file is not None and file.is_file():
            return AffineMaps.load(file, self.layout)
        fit, L = AffineFit(self.layout), self.teacher.num_layers
        loader = data.train_images_dataloader(settings.images)
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for images, _ in track(loader, "floors"):
                acts = Online().activations(self.teacher, data.normalize(images.to(self.device)), range(L + 1))
                fit.update([acts[layer] for layer in range(L + 1)])
        maps = fit.solve()
        if file is not None and self.trainer.is_global_zero:
            maps.save(file)
        return maps

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Run the teacher, and add its layers to the metrics of each student."""
        images, labels = batch
        L = self.teacher.num_layers
        acts = Online().activations(self.teacher, images, range(L + 1))
        self.update_metrics(acts, self.teacher.head(acts[L]), labels)

    def update_metrics(self, acts: Mapping[int, Tensor], teacher_logits: Tensor, labels: Tensor) -> None:
        """Add a batch: fidelity of each student, and top-1 of its last layer through the rest of the teacher.

        Parameters
        ----------
        acts
            The teacher's layers 0..L, ``(B, N, D)`` each.
        teacher_logits
            Its logits ``(B, classes)``.
        labels
            ``(B,)``.
        """
        if self.teacher_top1 is not None:
            self.teacher_top1.update(teacher_logits, labels)
        for student, scores in self._scored_students():
            start, end = student.phase
            preds = list(student.steps(acts[start]))
            scores.fidelity.update(preds, [acts[layer] for layer in range(start + 1, end + 1)], acts[start])
            if self.teacher_top1 is not None:
                logits = self.teacher.head(self.teacher.run_to(preds[-1], end))
                scores.update_accuracy(logits, teacher_logits, labels)
        if self.floor_scores is not None:
            self.floor_scores.update(acts)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies and means over layers, keep the curves over layers for the results."""
        if self.teacher_top1 is not None:
            self.log("val/teacher_top1", self.teacher_top1)
        if self.floor_scores is not None:
            self._floors, self._floor_official = self.floor_scores.compute()
            self.floor_scores = None
        for student, metrics in self._scored_students():
            prefix, whole = f"val/{self._prefix(student)}", student is self.model
            accuracies, scores = metrics.compute()
            self._curves[student.name] = scores.curves
            for name, value in accuracies.items():
                self.log(f"{prefix}{name}", value, prog_bar=whole and name == "top1")
            for measure, by_type in scores.curves.items():
                for kind, values in by_type.items():
                    self.log(f"{prefix}{measure}_{kind}", fmean(values), prog_bar=whole and measure == HEADLINE)
            for name, number in scores.official.items():
                self.log(f"{prefix}{name}", number)
            for kind, number in self._above_floor(student).items():
                self.log(f"{prefix}above_floor_{kind}", number)

    def _above_floor(self, student: Student) -> dict[str, float]:
        floors = self._floors.get(student.name)
        return above_floor(self._curves[student.name], floors) if floors else {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the phases beside the weights: other phases of the same number have weights of the same shape."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["phases"] = self._phases()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the phases; see :meth:`Task.on_load_checkpoint`.

        Raises
        ------
        ModelFileError
            If the checkpoint is of other phases.
        """
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("phases") != self._phases():
            expected = f"{self._phases()}, as this configuration has them"
            fix = "bring the former phases back by surrogate.boundaries, or start afresh under another name=..."
            raise ModelFileError.of("phases of the checkpoint", checkpoint.get("phases"), expected, fix)

    def _phases(self) -> Any:
        """Return plain data that says which layers each block produces."""
        if isinstance(self.model, PartitionEnsemble):
            return self.model.labels
        if isinstance(self.model, Rival):
            return self.model.to_config()["stretches"]
        blocks = self.model.blocks if isinstance(self.model, Surrogate) else self.model
        return [list(phase) for phase in blocks.phases]

    def details(self) -> dict[str, Any]:
        """Return the measures by student, token type and layer, and floors beside them.

        ``floors`` and ``above_floor`` are of R2 centred, and of a surrogate without its name. ``floor_measures`` and
        ``floor_official`` are the scores of floors under all measures.
        """
        if not self._floors:
            return {"layers": self._curves}
        floors = {
            name: {floor: curves[HEADLINE] for floor, curves in by_floor.items()}
            for name, by_floor in self._floors.items()
        }
        above = {student.name: self._above_floor(student) for student in self.students}
        if isinstance(self.model, Surrogate | Rival):
            floors, above = floors.get(self.model.name, {}), above.get(self.model.name, {})  # type: ignore[assignment]
        return {
            "layers": self._curves,
            "floors": floors,
            "above_floor": above,
            "floor_measures": self._floors,
            "floor_official": self._floor_official,
        }

    def describe(self) -> dict[str, Any]:
        """Describe what was trained, and from which teacher."""
        model = self.model
        what: dict[str, Any] = {"kind": "blocks", "phases": self._phases()}
        if isinstance(model, Surrogate):
            what = {"kind": "surrogate", "k": model.k, "boundaries": model.boundaries}
        if isinstance(model, Rival):
            what = {"kind": "rival", "k": model.k, "boundaries": model.boundaries, "stretches": self._phases()}
            what |= {"rival": model.label, "matched": model.matched}
        if isinstance(model, Surrogate | Rival):
            what |= {"block_flops": block_flops(model), "teacher_block_flops": block_flops(self.teacher)}
        blocks = model.blocks if isinstance(model, Surrogate | Rival) else model
        return {
            **what,
            "num_layers": self.teacher.num_layers,
            "block_parameters": sum(p.numel() for p in blocks.parameters()),
            "teacher_block_parameters": sum(p.numel() for p in self.teacher.blocks.parameters()),
            **self.about,
        }


def phase_pairs(student: Student) -> list[tuple[int, int]] | None:
    """Pair each layer that a student produces with the start of its phase; None where depth is tied otherwise."""
    if isinstance(student, PhaseBlock):
        phases = [student.phase]
    elif isinstance(student, Surrogate):
        phases = student.blocks.phases
    elif isinstance(student, Rival):
        phases = student.phases  # of the surrogate that it is compared with, so that both have the same floors
    else:
        return None
    return [(phase.start, layer) for phase in phases for layer in range(phase.start + 1, phase.end + 1)]
