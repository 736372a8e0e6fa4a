"""Evaluate and select heads on a frozen backbone: what the probes for classes, labels and depth share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from raptor.data.module import HELD_OUT, ImageData
from raptor.errors import NonFiniteError
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe
from raptor.models.rival import Rival
from raptor.models.surrogate import Surrogate
from raptor.tasks.probes.features import Features
from raptor.tasks.probes.rules import RULES
from raptor.tasks.probes.training import HeadTraining


class Probe(HeadTraining):
    """Train heads on a frozen backbone, evaluate them, and select among steps and learning rates.

    Parameters
    ----------
    backbone, data, source, **kwargs
        As in :class:`~raptor.tasks.probes.training.HeadTraining`.
    """

    score: ClassVar[str]

    def __init__(self, backbone: Backbone, data: ImageData, source: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(backbone=backbone, data=data, source=source, **kwargs)
        self.scores = nn.ModuleList(self.make_scores() for _ in self.specs)
        self._finals: list[tuple[str, int]] = []  # rule and head, for the last validation
        self._selection: dict[str, Any] = {}
        self._samples: dict[str, Tensor] = {}  # targets that count so far, by split

    @abstractmethod
    def make_scores(self) -> nn.Module:
        """Make a collection of torchmetrics with :attr:`score` among them, over predictions and targets."""

    @abstractmethod
    def predict(self, head: LinearProbe, logits: Tensor, targets: Tensor) -> Tensor:
        """Turn a head's logits into what is scored, in the shape of the targets but for a dimension of classes."""

    @abstractmethod
    def counted(self, targets: Tensor) -> Tensor:
        """Mark the targets that count in the scores: a boolean tensor."""

    def mirrored(self, prediction: Tensor) -> Tensor:
        """Turn the prediction for a mirrored image into one for the image."""
        return prediction

    @property
    def product(self) -> nn.Module:
        """The head that the first rule of selection chose, of the first seed."""
        return self._final(*self._finals[0]) if self._finals else self.heads[0]

    def _final(self, rule: str, i: int) -> nn.Module:
        return (self.heads if rule == "last" else self.best.heads)[i]

    def describe(self) -> dict[str, Any]:
        """Describe the backbone that was probed."""
        backbone = self.backbone
        about = {"kind": self.name, "backbone": self.source, "num_layers": backbone.num_layers, "layer": self.layer}
        if isinstance(backbone, Surrogate | Rival):
            about |= {"k": backbone.k, "boundaries": backbone.boundaries}
        if isinstance(backbone, Rival):
            about |= {"rival": backbone.label}
        return about

    def details(self) -> dict[str, Any]:
        """List the selected heads with their metrics."""
        return {"selection": self._selection, "cached_features": self.cached}

    def setup(self, stage: str) -> None:
        """Run the validation before the first step over all images: it is epoch 0."""
        if stage == "fit" and self.trainer.limit_val_batches:
            self.trainer.num_sanity_val_steps = math.inf

    def predictions(self, images: Tensor | Features, heads: Sequence[LinearProbe], targets: Tensor) -> list[Tensor]:
        """Predict images by several heads."""
        logits = self.logits(heads, self.extract(images))
        return [self.predict(head, x, targets) for head, x in zip(heads, logits, strict=True)]

    def on_validation_start(self) -> None:
        """Choose the heads of the last validation, and count targets anew."""
        self._samples = {}
        if self.trainer.state.fn == "validate":
            seeds = dict.fromkeys(spec.seed for spec in self.specs)
            self._finals = [(rule, self.best.chosen(rule, seed)) for rule in self.rules for seed in seeds]

    def _evaluated(self, split: str) -> list[tuple[LinearProbe, nn.Module]]:
        """List the heads to evaluate on a split, each with its scores."""
        if self.trainer.state.fn == "validate":
            while len(self.scores) < len(self._finals):
                self.scores.append(self.make_scores().to(self.device))
            return [(cast(LinearProbe, self._final(*f)), s) for f, s in zip(self._finals, self.scores, strict=False)]
        return [(cast(LinearProbe, self.heads[i]), self.scores[i]) for i in self._heads_of(split)]

    def _heads_of(self, split: str) -> list[int]:
        return [i for i, spec in enumerate(self.specs) if spec.holds_out == (split == HELD_OUT)]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add a batch to the scores."""
        images, targets = batch
        split = "val" if self.trainer.state.fn == "validate" else self.data.eval_splits[dataloader_idx]
        heads = [head for head, _ in self._evaluated(split)]
        predictions = self.predictions(images, heads, targets)
        if self.flip:
            flipped = self.predictions(cast(Tensor, images).flip(-1), heads, targets)
            predictions = [(a + self.mirrored(b)) / 2 for a, b in zip(predictions, flipped, strict=True)]
        for (_, scores), prediction in zip(self._evaluated(split), predictions, strict=True):
            scores.update(prediction, targets)  # type: ignore[operator]
        self._samples[split] = self._samples.get(split, 0) + self.counted(targets).sum()

    def on_validation_epoch_end(self) -> None:
        """Keep the best heads so far, or record the selected ones.

        Raises
        ------
        NonFiniteError
            If no target of a split counts, so that there is nothing to score.
        """
        for split, count in self._samples.items():
            if not int(count):
                expected = f"a number; data={self.data.name} has no {self.target} target that counts in split {split}"
                fix = "look at the targets of the evaluation images, and at the keys of task that bound them"
                raise NonFiniteError.of(f"{split}/{self.score}", math.nan, expected, fix)
        if self.trainer.state.fn == "validate":
            self._record_selection()
        else:
            self._update_best()

    def _values(self, scores: Any) -> dict[str, float]:
        values = {name: float(value) for name, value in scores.compute().items()}
        scores.reset()
        return values

    def _update_best(self) -> None:
        for split in self.data.eval_splits:
            metrics = []
            for i in self._heads_of(split):
                metrics.append(self._values(self.scores[i]))
                self.best.update(i, metrics[-1][self.score], self.heads[i], self.global_step)
            for name in metrics[0]:
                mean = sum(values[name] for values in metrics) / len(metrics)
                self.log(f"{split}/{name}", mean, prog_bar=name == self.score)

    def _record_selection(self) -> None:
        rates = [group["lr"] for group in self._optimizer(self.parameter_groups()).param_groups]  # type: ignore[arg-type]
        selected: dict[str, list[dict[str, Any]]] = {rule: [] for rule in self.rules}
        epoch = max(1, -(-len(self.data.train_images) // self.data.batch_size)) / self.trainer.accumulate_grad_batches
        for (rule, i), (_, scores) in zip(self._finals, self._evaluated("val"), strict=True):
            metrics = {f"val/{name}": value for name, value in self._values(scores).items()}
            chosen = {"seed": self.specs[i].seed, "learning_rate": rates[i], "metrics": metrics}
            chosen |= {} if rule == "last" else self.best.record(i, epoch)
            selected[rule].append(chosen)
        shown = selected[self.rules[0]]
        for name in shown[0]["metrics"]:
            self.log(name, sum(chosen["metrics"][name] for chosen in shown) / len(shown))
        self._selection = {"shown": self.rules[0], "score": f"val/{self.score}", **selected}
        self._selection["rules"] = {rule: RULES[rule] for rule in self.rules}
