"""Distillation of a frozen teacher into tied blocks: stage 1 (blocks apart) and stage 2 (end to end)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from raptor.data.sources import ActivationSource, Online
from raptor.errors import ConfigError, ModelFileError
from raptor.models.surrogate import PhaseBlock, PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.models.tied import PartitionEnsemble, TiedDepth
from raptor.partition.phases import Phase
from raptor.tasks.base import Task
from raptor.tasks.distillation.fidelity import PieceScores
from raptor.tasks.distillation.losses import TokenLoss

Piece = PhaseBlock | Surrogate | TiedDepth


class Distillation(Task):
    """Match the teacher's layers by rollouts of tied blocks.

    The two stages differ in what rolls out as one *piece*: in stage 1 the block of each phase, from the
    teacher's layer at its start; in stage 2 the whole surrogate, from layer 0. The loss of a piece is
    ``w * forced + (1 - w) * rollout``: *forced* predicts every layer from the teacher's layer before it,
    *rollout* from the piece's own output, with gradients through the whole rollout; both are means over
    layers. w falls linearly from 1 to 0 over the first steps, and a pass whose weight is 0 is not run.

    The blocks of stage 1 share nothing but the teacher's pass: gradients are clipped for each piece by
    itself, so that training several blocks at once equals training each alone.

    Parameters
    ----------
    teacher
        Frozen here.
    model
        What is trained: blocks (stage 1), a surrogate (stage 2), or several ways to tie depth, each a piece.
    loss
        Loss of one predicted layer.
    last_phase_loss
        Loss of a piece that ends at layer L; None takes ``loss``.
    teacher_forcing
        Share of the steps over which w falls from 1 to 0; 0 is a free rollout from the start.
    rollout_growth
        Share of the steps over which rollouts grow from one layer to the whole piece. Until then a piece rolls out in
        stretches, each from the teacher's layer at its start. 0 rolls the whole piece out at once.
    input_noise
        Standard deviation of the noise that is added to tokens before every application of a block, in rollouts and
        under teacher forcing, as in the recipe (where it is 0).
    top1
        Whether the labels are those of the teacher's head, so that top-1 means something.
    about
        Plain data to keep with the results (how the phases were chosen).
    source
        Where training takes the teacher's layers from; validation always runs the teacher.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.
    """

    def __init__(
        self,
        teacher: Teacher,
        model: PhaseBlocks | Surrogate | PartitionEnsemble,
        loss: TokenLoss,
        last_phase_loss: TokenLoss | None = None,
        teacher_forcing: float = 0.0,
        rollout_growth: float = 0.0,
        input_noise: float = 0.0,
        top1: bool = True,
        about: dict[str, Any] | None = None,
        source: ActivationSource | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher, self.model = freeze(teacher), model
        self.layout, self.about, self.source = teacher.layout, about or {}, source or Online()
        self.loss, self.last_phase_loss = loss, last_phase_loss or loss
        self.teacher_forcing, self.rollout_growth, self.input_noise = teacher_forcing, rollout_growth, input_noise
        if not teacher_forcing >= 0:
            raise ConfigError.of("task.teacher_forcing", teacher_forcing, "number >= 0", "set it to such a share")
        if not 0 <= rollout_growth <= 1:
            raise ConfigError.of("task.rollout_growth", rollout_growth, "number from 0 to 1", "set it to such a share")
        is_last = [piece.phase.end == teacher.num_layers and last_phase_loss is not None for piece in model.students()]
        if not all(is_last):
            self.loss.check(self.layout, "task.loss")
        if any(is_last):
            self.last_phase_loss.check(self.layout, "task.last_phase_loss")
        num_classes = teacher.num_classes if top1 else None
        self.scores = nn.ModuleList(
            PieceScores(self.layout, p.phase.end - p.phase.start, num_classes) for p in model.students()
        )
        self.teacher_top1 = MulticlassAccuracy(num_classes, average="micro") if num_classes else None
        self._curves: dict[str, Any] = {}

    @property
    def pieces(self) -> list[Piece]:
        """What rolls out by itself."""
        return list(self.model.students())

    def _pieces_and_scores(self) -> list[tuple[Piece, PieceScores]]:
        return list(zip(self.pieces, cast(Iterable[PieceScores], self.scores), strict=True))

    @property
    def frozen(self) -> nn.Module:
        """The teacher."""
        return self.teacher

    @property
    def product(self) -> nn.Module:
        """The blocks, or the surrogate."""
        return self.model

    def clipped_groups(self) -> list[list[nn.Parameter]]:
        """One group for each piece."""
        return [[p for p in piece.parameters() if p.requires_grad] for piece in self.pieces]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Depth scaling apart: Muon might take it for a matrix of the block."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        depth = [p for name, p in trained.items() if ".depth." in name]
        groups = [{"params": [p for name, p in trained.items() if ".depth." not in name]}]
        return groups + ([{"params": depth, "use_fallback": True}] if depth else [])

    def forcing_weight(self) -> float:
        """Weight w of teacher forcing at this step, 1 to 0."""
        span = self.teacher_forcing * self.trainer.max_steps
        return max(0.0, 1.0 - self.global_step / span) if span > 0 else 0.0

    def _prefix(self, piece: Piece) -> str:
        return "" if piece is self.model else f"{piece.name}/"

    def _loss_of(self, phase: Phase) -> TokenLoss:
        return self.last_phase_loss if phase.end == self.teacher.num_layers else self.loss

    @property
    def layers(self) -> set[int]:
        """Layers of the teacher that training needs."""
        return {layer for p in self.pieces for layer in range(p.phase.start, p.phase.end + 1)}

    def piece_loss(self, piece: Piece, acts: Mapping[int, Tensor]) -> Tensor:
        """Loss of one piece.

        Parameters
        ----------
        piece
            What rolls out.
        acts
            The teacher's layers start..end of the piece, ``(B, N, D)`` each.
        """
        phase, w = piece.phase, self.forcing_weight()
        loss = self._loss_of(phase)
        total = acts[phase.end].new_zeros((), dtype=torch.float32)
        passes = []
        if w > 0:
            inputs = [self._noisy(acts[layer]) for layer in range(phase.start, phase.end)]
            passes.append((w, piece.teacher_forced(inputs)))
        if w < 1:
            passes.append((1 - w, self._rollout(piece, acts)))  # type: ignore[arg-type]
        for weight, preds in passes:
            for layer, pred in enumerate(preds, start=phase.start + 1):
                total = total + weight * loss(pred, acts[layer], self.layout)
        return total / (phase.end - phase.start)

    def rollout_length(self, layers: int) -> int:
        """Layers that a piece of so many rolls out in one stretch at this step."""
        if self.rollout_growth == 0:
            return layers
        done = self.global_step / (self.rollout_growth * self.trainer.max_steps)
        return min(layers, max(1, ceil(layers * done)))

    def _rollout(self, piece: Piece, acts: Mapping[int, Tensor]) -> Iterator[Tensor]:
        start, end = piece.phase
        length = self.rollout_length(end - start)
        for first in range(start, end, length):
            last = min(first + length, end)
            if self.input_noise == 0:
                yield from piece.steps(acts[first], first, last)
                continue
            x = acts[first]
            for layer in range(first, last):
                (x,) = piece.steps(self._noisy(x), layer, layer + 1)
                yield x

    def _noisy(self, x_BND: Tensor) -> Tensor:
        return x_BND if self.input_noise == 0 else x_BND + self.input_noise * torch.randn_like(x_BND)

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """Sum of the losses of all pieces, from the same activations of the teacher."""
        acts = self.source.activations(self.teacher, batch[0], self.layers)
        losses = [self.piece_loss(piece, acts) for piece in self.pieces]
        for piece, loss in zip(self.pieces, losses, strict=True):
            self.log(f"train/{self._prefix(piece)}loss", loss.detach(), prog_bar=len(losses) == 1, sync_dist=True)
        return torch.stack(losses).sum()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Run the teacher, and judge each piece by its layers."""
        images, labels = batch
        L = self.teacher.num_layers
        acts = Online().activations(self.teacher, images, range(L + 1))
        self.judge(acts, self.teacher.head(acts[L]), labels)

    def judge(self, acts: Mapping[int, Tensor], teacher_logits: Tensor, labels: Tensor) -> None:
        """Fidelity of each piece, and top-1 after handing its last layer to the rest of the teacher.

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
        for piece, scores in self._pieces_and_scores():
            start, end = piece.phase
            preds = list(piece.steps(acts[start]))
            scores.fidelity.update(preds, [acts[layer] for layer in range(start + 1, end + 1)])
            if self.teacher_top1 is not None:
                logits = self.teacher.head(self.teacher.run_to(preds[-1], end))
                scores.update_accuracy(logits, teacher_logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log accuracies and the means over layers, keep the curves over layers for the results."""
        if self.teacher_top1 is not None:
            self.log("val/teacher_top1", self.teacher_top1)
        for piece, scores in self._pieces_and_scores():
            prefix, whole = f"val/{self._prefix(piece)}", piece is self.model
            accuracies, curves = scores.compute()
            self._curves[piece.name] = curves
            for name, value in accuracies.items():
                self.log(f"{prefix}{name}", value, prog_bar=whole and name == "top1")
            for measure, by_type in curves.items():
                for kind, values in by_type.items():
                    self.log(f"{prefix}{measure}_{kind}", fmean(values), prog_bar=whole and measure == "r2")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the phases beside the weights: other phases of the same number have weights of the same shape."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["phases"] = self._phases()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the phases; see :meth:`Task.on_load_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("phases") != self._phases():
            expected = f"the phases of the checkpoint, {checkpoint.get('phases')}"
            fix = "bring them back by surrogate.boundaries, or start afresh under another name=..."
            raise ModelFileError.of("phases", self._phases(), expected, fix)

    def _phases(self) -> Any:
        """Plain data that says which layers each block produces."""
        if isinstance(self.model, PartitionEnsemble):
            return self.model.labels
        blocks = self.model.blocks if isinstance(self.model, Surrogate) else self.model
        return [list(phase) for phase in blocks.phases]

    def details(self) -> dict[str, Any]:
        """R2 and cosine by phase, token type and layer."""
        return {"layers": self._curves}

    def describe(self) -> dict[str, Any]:
        """Describe what was trained, from which teacher."""
        model = self.model
        what: dict[str, Any] = {"kind": "blocks", "phases": self._phases()}
        if isinstance(model, Surrogate):
            what = {"kind": "surrogate", "k": model.k, "boundaries": model.boundaries}
        blocks = model.blocks if isinstance(model, Surrogate) else model
        return {
            **what,
            "num_layers": self.teacher.num_layers,
            "block_parameters": sum(p.numel() for p in blocks.parameters()),
            "teacher_block_parameters": sum(p.numel() for p in self.teacher.blocks.parameters()),
            **self.about,
        }
