"""Heads on a frozen backbone: what the probes for classes, labels and depth share."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe, stacked
from raptor.models.surrogate import Surrogate
from raptor.models.teacher import freeze
from raptor.tasks.base import Task
from raptor.tasks.probes.features import Features, compute, keep
from raptor.tasks.probes.rules import RULES
from raptor.tasks.probes.selection import HELD_OUT, Best, check_rules, plan_heads
from raptor.utils.seeding import derive_seed

log = logging.getLogger(__name__)


class Probe(Task):
    """Train K heads side by side in one pass over a frozen backbone, teacher or surrogate alike.

    There is a head for each combination of learning rate, seed, and way of training that the rules need. They
    share batches and nothing else, so that K heads equal K runs. A subclass says what they see and answer.

    Parameters
    ----------
    backbone
        What to probe; frozen here.
    data
        Gives the targets; it is told which images to hold out and to judge by.
    source
        What the backbone is, for results: plain data.
    selection
        Rules of selection (:mod:`raptor.tasks.probes.selection`); the first is shown in tables.
    learning_rates
        Rates to choose among by the rules of selection; None takes the optimiser's own.
    head_seeds
        Number of heads that differ in their first weights alone; metrics are means over them.
    layer
        Layer whose tokens, after the final norm, are probed; None is the last.
    cache, cache_gib
        Whether to compute features once where images are the same every time (validation; training, where
        nothing is augmented), and the most memory for them in GiB.
    flip
        Whether to average each answer with that for the mirrored image, at validation.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.

    Raises
    ------
    ConfigError
        If the data has other targets, or options do not go together.
    """

    target: ClassVar[str]
    score: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    one_process: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        selection: Sequence[str] = ("official", "held_out"),
        learning_rates: Sequence[float] | None = None,
        head_seeds: int = 1,
        layer: int | None = None,
        cache: bool = True,
        cache_gib: float = 4.0,
        flip: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if data.target != self.target:
            raise ConfigError(
                f"task={self.name} learns from targets of kind {self.target!r}, data={data.name} has {data.target!r}"
            )
        backbone.check_range(0, layer)
        self.backbone, self.data, self.source, self.layer = freeze(backbone), data, source, layer
        self.cache, self.cache_bytes, self.flip = cache, int(cache_gib * 2**30), flip
        rates = list(learning_rates) if learning_rates else [None]
        self.rules = check_rules(selection, len(rates))
        seeds = [self.seed, *(derive_seed(self.seed, "head", i) for i in range(1, head_seeds))]
        self.specs = plan_heads(self.rules, seeds, rates)
        self.heads = nn.ModuleList()
        with torch.random.fork_rng(devices=[]):
            for spec in self.specs:
                torch.manual_seed(spec.seed)
                self.heads.append(self.make_head())
        self.best = Best(self.heads, self.specs, self.higher_is_better)
        self.scores = nn.ModuleList(self.make_scores() for _ in self.specs)
        holds_out = [spec.holds_out for spec in self.specs]
        if any(holds_out):
            data.hold_out()
        data.eval_splits = (*(() if all(holds_out) else ("val",)), *((HELD_OUT,) if any(holds_out) else ()))
        self._finals: list[tuple[str, int]] = []  # rule and head, for the last validation
        self._selection, self.cached = dict[str, Any](), list[str]()

    @abstractmethod
    def make_head(self) -> LinearProbe:
        """A head, its weights from torch's global generator."""

    @abstractmethod
    def make_scores(self) -> nn.Module:
        """A collection of torchmetrics with :attr:`score` among them, over answers and targets."""

    @abstractmethod
    def select(self, tokens_BND: Tensor) -> Tensor:
        """What heads see of the final tokens: ``(B, ..., F)``."""

    def raw(self, heads: Sequence[LinearProbe], features: Tensor) -> Tensor:
        """What K heads make of features: ``(K, B, ...)``."""
        return stacked(heads, features)

    @abstractmethod
    def losses(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Loss of each of K heads on a batch, ``(K,)``."""

    @abstractmethod
    def answer(self, head: LinearProbe, raw: Tensor, targets: Tensor) -> Tensor:
        """What is judged, in the shape of the targets but for a dimension of classes at 1, if any."""

    def mirrored(self, answer: Tensor) -> Tensor:
        """The answer for a mirrored image as one for the image."""
        return answer

    @property
    def frozen(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    @property
    def product(self) -> nn.Module:
        """The head that the first rule of selection chose, of the first seed."""
        return self._final(*self._finals[0]) if self._finals else self.heads[0]

    def _final(self, rule: str, i: int) -> nn.Module:
        return (self.heads if rule == "last" else self.best.heads)[i]

    def describe(self) -> dict[str, Any]:
        """What was probed."""
        backbone = self.backbone
        about = {"kind": self.name, "backbone": self.source, "num_layers": backbone.num_layers, "layer": self.layer}
        if isinstance(backbone, Surrogate):
            about |= {"k": backbone.k, "boundaries": backbone.boundaries}
        return about

    def details(self) -> dict[str, Any]:
        """Which heads were selected, how, and how they do."""
        return {"selection": self._selection, "cached_features": self.cached}

    def clipped_groups(self) -> list[list[nn.Parameter]]:
        """One group for each head."""
        return [list(head.parameters()) for head in self.heads]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group for each head, with its learning rate."""
        rates = [{} if spec.learning_rate is None else {"lr": spec.learning_rate} for spec in self.specs]
        return [{"params": list(head.parameters()), **rate} for head, rate in zip(self.heads, rates, strict=True)]

    def extract(self, images: Tensor | Features) -> Tensor:
        """Features of normalised images, without gradients; given features are handed on."""
        if isinstance(images, Features):
            return images.x
        with torch.no_grad():
            return self.select(self.backbone(images, self.layer))

    def setup(self, stage: str) -> None:
        """Let the validation before the first step go through all images: it is epoch 0."""
        if stage == "fit" and self.trainer.limit_val_batches:
            self.trainer.num_sanity_val_steps = math.inf

    def on_fit_start(self) -> None:
        """Compute what can be computed once."""
        data = self.data
        if not self.cache or data.on_error == "skip":  # what is skipped is known only as it is read
            return
        splits = {} if self.flip else {split: data.eval_images(split) for split in data.eval_splits}
        if data.augment is None:
            splits["train"] = data.train_images
        if self.trainer.limit_val_batches == 1.0:
            self.cached = keep(data, splits, self._size, self.features_of, self.cache_bytes)

    def features_of(self, images: Any, what: str) -> tuple[Tensor, Tensor]:
        """Features and targets of a dataset, in order, on the CPU."""
        loader = self.data.loader(images, batch_size=self.data.eval_batch_size)
        with self.trainer.precision_plugin.forward_context():
            device, normalize = self.device, self.data.normalize
            return compute(loader, len(images), self.extract, lambda x: normalize(x.to(device)), f"features of {what}")

    def _size(self, images: Any) -> int:
        image, target = images[0]
        with torch.no_grad():
            features = self.extract(self.data.normalize(image[None].to(self.device)))
        return (4 * features.numel() + 8 * torch.as_tensor(target).numel()) * len(images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """As every task; and see to it that a validation follows the last step."""
        super().on_train_batch_start(batch, batch_idx)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.trainer.num_training_batches:
            self.trainer.should_stop = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Sum of the losses of all heads."""
        images, targets = batch
        held = None
        if self.data.held_out is not None:
            targets, held = targets
        raw = self.raw(list(cast(Any, self.heads)), self.extract(images))
        losses = []
        for holds_out in sorted({spec.holds_out for spec in self.specs}):
            own = torch.stack([x for x, spec in zip(raw, self.specs, strict=True) if spec.holds_out == holds_out])
            rows = ~held if holds_out and held is not None else slice(None)
            losses.append(self.losses(own[:, rows], targets[rows]))
        self.log("train/loss", torch.cat(losses).detach().mean(), prog_bar=True)
        return torch.cat(losses).sum()

    def answers(self, images: Tensor | Features, heads: Sequence[LinearProbe], targets: Tensor) -> list[Tensor]:
        """What heads answer about images."""
        raw = self.raw(heads, self.extract(images))
        return [self.answer(head, own, targets) for head, own in zip(heads, raw, strict=True)]

    def on_validation_start(self) -> None:
        """For the last validation, choose the heads to judge."""
        if self.trainer.state.fn == "validate":
            seeds = dict.fromkeys(spec.seed for spec in self.specs)
            self._finals = [(rule, self.best.chosen(rule, seed)) for rule in self.rules for seed in seeds]

    def _judged(self, split: str) -> list[tuple[LinearProbe, nn.Module]]:
        """Heads to judge on a split, each with its scores."""
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
        fitting = self.trainer.state.fn != "validate"
        judged = self._judged(self.data.eval_splits[dataloader_idx] if fitting else "val")
        heads = [head for head, _ in judged]
        answers = self.answers(images, heads, targets)
        if self.flip:
            mirrored = self.answers(cast(Tensor, images).flip(-1), heads, targets)
            answers = [(a + self.mirrored(b)) / 2 for a, b in zip(answers, mirrored, strict=True)]
        for (_, scores), answer in zip(judged, answers, strict=True):
            scores.update(answer, targets)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Keep what is best so far, or write down what was selected."""
        if self.trainer.state.fn == "validate":
            self._write_down()
        else:
            self._keep_best()

    def _values(self, scores: Any) -> dict[str, float]:
        values = {name: float(value) for name, value in scores.compute().items()}
        scores.reset()
        return values

    def _keep_best(self) -> None:
        for split in self.data.eval_splits:
            found = []
            for i in self._heads_of(split):
                found.append(self._values(self.scores[i]))
                self.best.offer(i, found[-1][self.score], self.heads[i], self.global_step)
            for name in found[0]:
                mean = sum(values[name] for values in found) / len(found)
                self.log(f"{split}/{name}", mean, prog_bar=name == self.score)

    def _write_down(self) -> None:
        rates = [group["lr"] for group in self._optimizer(self.parameter_groups()).param_groups]  # type: ignore[arg-type]
        found: dict[str, list[dict[str, Any]]] = {rule: [] for rule in self.rules}
        epoch = max(1, -(-len(self.data.train_images) // self.data.batch_size)) / self.trainer.accumulate_grad_batches
        for (rule, i), (_, scores) in zip(self._finals, self._judged("val"), strict=True):
            metrics = {f"val/{name}": value for name, value in self._values(scores).items()}
            chosen = {"seed": self.specs[i].seed, "learning_rate": rates[i], "metrics": metrics}
            chosen |= {} if rule == "last" else self.best.record(i, epoch)
            found[rule].append(chosen)
        shown = found[self.rules[0]]
        for name in shown[0]["metrics"]:
            self.log(name, sum(chosen["metrics"][name] for chosen in shown) / len(shown))
        self._selection = {"shown": self.rules[0], "score": f"val/{self.score}", **found}
        self._selection["rules"] = {rule: RULES[rule] for rule in self.rules}
