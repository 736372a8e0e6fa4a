"""Distil a frozen teacher into tied blocks: stage 1 (each block alone) and stage 2 (end to end).

Shapes: B images, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from raptor.data.sources import ActivationSource, Online
from raptor.errors import ConfigError
from raptor.models.rival import Rival
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.models.tied import PartitionEnsemble
from raptor.partition.phases import Phase
from raptor.tasks.distillation.evaluation import Student, StudentEvaluation
from raptor.tasks.distillation.losses import TokenLoss


class Distillation(StudentEvaluation):
    """Match the teacher's layers by rollouts of tied blocks.

    The stages differ in their students: in stage 1 the block of each phase, which rolls out from the teacher's layer at
    its start; in stage 2 the whole surrogate, from layer 0. The loss of a student is
    ``w * forced + (1 - w) * rollout``. *forced* predicts every layer from the teacher's layer before it. *rollout*
    predicts it from the student's own output, with gradients through the whole rollout. Both are means over layers, of
    a rival over those that it is matched at. w falls linearly from 1 to 0 over the first steps, and a pass whose weight
    is 0 is not run.

    The blocks of stage 1 share nothing but the teacher's pass: gradients are clipped for each student by itself, so
    that training several blocks at once equals training each alone.

    Parameters
    ----------
    teacher, model
        As in :class:`~raptor.tasks.distillation.evaluation.StudentEvaluation`.
    loss
        Loss of one predicted layer.
    last_phase_loss
        Loss of a student that ends at layer L; None takes ``loss``.
    teacher_forcing
        Share of the steps over which w falls from 1 to 0; 0 is a free rollout from the start.
    rollout_growth
        Share of the steps over which rollouts grow from one layer to all. Until then a student rolls out in stretches,
        each from the teacher's layer at its start. 0 rolls out all layers at once.
    input_noise
        Standard deviation of the noise that is added to tokens before every application of a block, in rollouts and
        under teacher forcing, as in the recipe (where it is 0).
    source
        Source of the teacher's layers in training; validation always runs the teacher.
    **kwargs
        As in :class:`~raptor.tasks.distillation.evaluation.StudentEvaluation`.

    Raises
    ------
    ConfigError
        If a share is out of range, or a loss does not fit the teacher's tokens.
    """

    def __init__(
        self,
        teacher: Teacher,
        model: PhaseBlocks | Surrogate | Rival | PartitionEnsemble,
        loss: TokenLoss,
        last_phase_loss: TokenLoss | None = None,
        teacher_forcing: float = 0.0,
        rollout_growth: float = 0.0,
        input_noise: float = 0.0,
        source: ActivationSource | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher=teacher, model=model, **kwargs)
        self.source = source or Online()
        self.loss, self.last_phase_loss = loss, last_phase_loss or loss
        self.teacher_forcing, self.rollout_growth, self.input_noise = teacher_forcing, rollout_growth, input_noise
        if not teacher_forcing >= 0:
            raise ConfigError.of("task.teacher_forcing", teacher_forcing, "number >= 0", "set it to 0, or to .inf")
        if not 0 <= rollout_growth <= 1:
            raise ConfigError.of("task.rollout_growth", rollout_growth, "number from 0 to 1", "set it to 0")
        is_last = [s.phase.end == teacher.num_layers and last_phase_loss is not None for s in self.students]
        used = {"task.loss": not all(is_last), "task.last_phase_loss": any(is_last)}
        for key, loss in (("task.loss", self.loss), ("task.last_phase_loss", self.last_phase_loss)):
            if used[key] and hasattr(loss, "check"):  # a function of one's own has none
                loss.check(self.layout, key)

    def clipped_groups(self) -> list[list[nn.Parameter]]:
        """Group the parameters of each student."""
        return [[p for p in student.parameters() if p.requires_grad] for student in self.students]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group depth scaling apart: Muon might take it for a matrix of the block."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        depth = [p for name, p in trained.items() if ".depth." in name]
        groups = [{"params": [p for name, p in trained.items() if ".depth." not in name]}]
        return groups + ([{"params": depth, "use_fallback": True}] if depth else [])

    def forcing_weight(self) -> float:
        """Compute the weight w of teacher forcing at this step, 1 to 0."""
        span = self.teacher_forcing * self.trainer.max_steps
        return max(0.0, 1.0 - self.global_step / span) if span > 0 else 0.0

    def _loss_of(self, phase: Phase) -> TokenLoss:
        return self.last_phase_loss if phase.end == self.teacher.num_layers else self.loss

    @property
    def layers(self) -> set[int]:
        """Layers of the teacher that training needs."""
        return {layer for s in self.students for layer in range(s.phase.start, s.phase.end + 1)}

    def student_loss(self, student: Student, acts: Mapping[int, Tensor]) -> Tensor:
        """Compute the loss of one student.

        Parameters
        ----------
        student
            One of :attr:`students`.
        acts
            The teacher's layers start..end of the student, ``(B, N, D)`` each.
        """
        phase, w = student.phase, self.forcing_weight()
        matched = student.matched if isinstance(student, Rival) else range(phase.start + 1, phase.end + 1)
        loss = self._loss_of(phase)
        total = acts[phase.end].new_zeros((), dtype=torch.float32)
        passes = []
        if w > 0:
            inputs = [self._noisy(acts[layer]) for layer in range(phase.start, phase.end)]
            passes.append((w, student.teacher_forced(inputs)))
        if w < 1:
            passes.append((1 - w, self._rollout(student, acts)))  # type: ignore[arg-type]
        for weight, preds in passes:
            for layer, pred in enumerate(preds, start=phase.start + 1):
                if layer in matched:
                    total = total + weight * loss(pred, acts[layer], self.layout)
        return total / len(matched)

    def rollout_length(self, layers: int) -> int:
        """Return the layers of one stretch of a rollout at this step, for a student of so many layers."""
        if self.rollout_growth == 0:
            return layers
        done = self.global_step / (self.rollout_growth * self.trainer.max_steps)
        return min(layers, max(1, ceil(layers * done)))

    def _rollout(self, student: Student, acts: Mapping[int, Tensor]) -> Iterator[Tensor]:
        start, end = student.phase
        length = self.rollout_length(end - start)
        for first in range(start, end, length):
            last = min(first + length, end)
            if self.input_noise == 0:
                yield from student.steps(acts[first], first, last)
                continue
            x = acts[first]
            for layer in range(first, last):
                (x,) = student.steps(self._noisy(x), layer, layer + 1)
                yield x

    def _noisy(self, x_BND: Tensor) -> Tensor:
        return x_BND if self.input_noise == 0 else x_BND + self.input_noise * torch.randn_like(x_BND)

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """Sum the losses of all students, from the same activations of the teacher."""
        acts = self.source.activations(self.teacher, batch[0], self.layers)
        losses = [self.student_loss(student, acts) for student in self.students]
        for student, loss in zip(self.students, losses, strict=True):
            self.log(f"train/{self._prefix(student)}loss", loss.detach(), prog_bar=len(losses) == 1, sync_dist=True)
        return torch.stack(losses).sum()
