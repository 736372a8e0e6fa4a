"""Train heads on frozen tokens: what a head sees and predicts, its loss, and features that are computed once.

Shapes: B images, N tokens of width D, P patches, K heads, F features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from raptor.data.module import HELD_OUT, ImageData
from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.heads import LinearProbe, stacked
from raptor.models.teacher import freeze
from raptor.tasks.base import Task
from raptor.tasks.probes.features import Features, compute, keep
from raptor.tasks.probes.selection import BestHeads, check_rules, plan_heads
from raptor.utils.seeding import derive_seed


class HeadTraining(Task):
    """Train K heads side by side in one pass over a frozen backbone, teacher or surrogate alike.

    There is a head for each combination of learning rate, seed, and set of training images that the rules of selection
    need. Heads share batches and nothing else, so that K heads equal K runs.

    Parameters
    ----------
    backbone
        Model to probe; frozen here.
    data
        Source of images and targets; its held-out split and its evaluation splits are set here.
    source
        Plain data that describes the backbone in results.
    selection
        Rules of selection (:mod:`raptor.tasks.probes.selection`); the first is shown in tables.
    learning_rates
        Rates to choose among by the rules of selection; None takes the optimiser's.
    head_seeds
        Number of heads that differ in their first weights alone; metrics are means over them.
    layer
        Layer whose tokens, after the final norm, are probed; None is the last.
    cache, cache_gib
        Whether to compute features once where images are the same every time (validation; training, where
        nothing is augmented), and the most memory for them in GiB.
    flip
        Whether to average each prediction with that for the mirrored image, at validation.
    **kwargs
        As in :class:`~raptor.tasks.base.Task`.

    Raises
    ------
    ConfigError
        If the data has other targets, or options do not go together.
    """

    target: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    one_process: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        source: dict[str, Any],
        *,
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
            expected = f"data with {self.target} targets for task={self.name}; it has {data.target} targets"
            raise ConfigError.of("data", data.name, expected, "choose another data set or another probe")
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
        self.best = BestHeads(self.heads, self.specs, higher_is_better=self.higher_is_better)
        holds_out = [spec.holds_out for spec in self.specs]
        data.evaluate_on([*(() if all(holds_out) else ("val",)), *((HELD_OUT,) if any(holds_out) else ())])
        self.cached: list[str] = []

    @abstractmethod
    def make_head(self) -> LinearProbe:
        """Make a head, its weights from torch's global generator."""

    @abstractmethod
    def features(self, tokens_BND: Tensor) -> Tensor:
        """Take what heads see of the final tokens: ``(B, ..., F)``."""

    def logits(self, heads: Sequence[LinearProbe], features: Tensor) -> Tensor:
        """Apply K heads to features: ``(K, B, ...)``."""
        return stacked(heads, features)

    @abstractmethod
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each of K heads on a batch, ``(K,)``."""

    @property
    def frozen(self) -> nn.Module:
        """The backbone."""
        return self.backbone

    def clipped_groups(self) -> list[list[nn.Parameter]]:
        """Group the parameters of each head."""
        return [list(head.parameters()) for head in self.heads]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group the parameters of each head, with its learning rate."""
        rates = [{} if spec.learning_rate is None else {"lr": spec.learning_rate} for spec in self.specs]
        return [{"params": list(head.parameters()), **rate} for head, rate in zip(self.heads, rates, strict=True)]

    def extract(self, images: Tensor | Features) -> Tensor:
        """Compute features of normalised images, without gradients; computed ones are passed on."""
        if isinstance(images, Features):
            return images.x
        with torch.no_grad():
            return self.features(self.backbone(images, self.layer))

    def on_fit_start(self) -> None:
        """Compute the features that are the same every time."""
        data = self.data
        if not self.cache or data.on_error == "skip":  # what is skipped is known only as it is read
            return
        splits = {} if self.flip else {split: data.eval_images(split) for split in data.eval_splits}
        if data.augment is None:
            splits["train"] = data.train_images
        if self.trainer.limit_val_batches == 1.0:
            self.cached = keep(data, splits, self._size, self.compute_features, self.cache_bytes)

    def compute_features(self, images: Any, name: str) -> tuple[Tensor, Tensor]:
        """Compute features and targets of a dataset, in order, on the CPU.

        Parameters
        ----------
        images
            The dataset.
        name
            Its name, for the progress bar.
        """
        loader = self.data.loader(images, batch_size=self.data.eval_batch_size)
        with self.trainer.precision_plugin.forward_context():
            device, normalize = self.device, self.data.normalize
            return compute(loader, len(images), self.extract, lambda x: normalize(x.to(device)), f"features of {name}")

    def _size(self, images: Any) -> int:
        image, target = images[0]
        with torch.no_grad():
            features = self.extract(self.data.normalize(image[None].to(self.device)))
        return (4 * features.numel() + 8 * torch.as_tensor(target).numel()) * len(images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and let a validation follow the last one."""
        super().on_train_batch_start(batch, batch_idx)
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.trainer.num_training_batches:
            self.trainer.should_stop = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Sum the losses of all heads."""
        images, targets = batch
        held = None
        if self.data.held_out is not None:
            targets, held = targets
        logits = self.logits(list(cast(Any, self.heads)), self.extract(images))
        losses = []
        for holds_out in sorted({spec.holds_out for spec in self.specs}):
            rows = ~held if holds_out and held is not None else slice(None)
            heads = [x for x, spec in zip(logits, self.specs, strict=True) if spec.holds_out == holds_out]
            losses.append(self.losses(torch.stack(heads)[:, rows], targets[rows]))
        self.log("train/loss", torch.cat(losses).detach().mean(), prog_bar=True)
        return torch.cat(losses).sum()
