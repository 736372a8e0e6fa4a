"""Draw the samples of each step, as a pure function of the seed and the step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from raptor.errors import ConfigError
from raptor.utils.seeding import derive_seed

log = logging.getLogger(__name__)
Transform = Callable[[Tensor, Any], tuple[Tensor, Any]]  # of an image and its target together, as torchvision's v2


class Draw(NamedTuple):
    """One training sample to be drawn.

    Attributes
    ----------
    sample
        Position in the dataset.
    stream_index
        Position in the stream of the whole training; seeds the augmentation.
    """

    sample: int
    stream_index: int


class Images(Protocol):
    """A dataset: ``(image, target)`` by position, the image uint8 ``(C, H, W)``, the target a class or a map."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, Any]: ...


def limit_batch(batch_size: int, images: int, name: str) -> int:
    """Limit a batch to the training images that there are, and say so.

    Parameters
    ----------
    batch_size
        As asked for.
    images
        Training images.
    name
        Of the data set.
    """
    if not 0 < images < batch_size:
        return batch_size
    log.warning("data.batch_size=%d: %s has %d training images, which all make a batch", batch_size, name, images)
    return images


def check_shares(batch_size: int, processes: int) -> None:
    """Raise a ConfigError if processes cannot have equal shares of each batch."""
    if batch_size % processes:
        expected = f"a multiple of {processes}, the number of processes"
        fix = f"set {max(1, round(batch_size / processes)) * processes}"
        raise ConfigError.of("data.batch_size", batch_size, expected, fix)


class StepSampler(Sampler[list[Draw]]):
    """Batches of an endless stream of permutations of the dataset, from any step on.

    Sample ``i`` of the stream is element ``i mod n`` of permutation ``i div n``, which depends on the seed alone. A run
    that resumes at step s thus continues with the very batch that an uninterrupted one would see. Batches are always
    full and may straddle two permutations.

    Parameters
    ----------
    num_samples
        Size n of the dataset.
    batch_size
        Samples per step over all processes.
    steps
        Number of steps of the whole training: the length of the sampler.
    seed
        Seed of the permutations.
    first_step
        Called when iteration begins; gives the step to begin with.
    rank, world_size
        This process among those that share each batch.

    Raises
    ------
    ConfigError
        If the processes cannot share a batch equally.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        steps: int,
        seed: int,
        first_step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_shares(batch_size, world_size)
        self.num_samples, self.batch_size, self.steps = num_samples, batch_size, steps
        self.seed, self.first_step = seed, first_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.first_step(), self.steps):
            batch = []
            for index in range(step * self.batch_size, (step + 1) * self.batch_size):
                if index // self.num_samples != epoch:
                    epoch = index // self.num_samples
                    order = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(self.num_samples)
                batch.append(Draw(int(order[index % self.num_samples]), index))
            yield batch[self.rank :: self.world_size]


class TrainingSet(Dataset[tuple[Tensor, Any]]):
    """A dataset with a random transform whose randomness depends on the seed and the draw alone.

    Parameters
    ----------
    dataset
        Gives ``(image, target)``.
    transform
        Random transform of the pair (it may use torch's global generator), or None.
    seed
        Seed of the transform.
    marks
        One flag for each sample, to come with its target as ``(target, flag)``; None leaves targets alone.
    """

    def __init__(
        self, dataset: Images, transform: Transform | None, seed: int, marks: Sequence[bool] | None = None
    ) -> None:
        self.dataset, self.transform, self.seed, self.marks = dataset, transform, seed, marks

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, draws: Sequence[Draw]) -> list[tuple[Tensor, Any]]:
        if self.transform is None and hasattr(self.dataset, "__getitems__"):
            samples = self.dataset.__getitems__([draw.sample for draw in draws])
            return [self._marked(draw, *sample) for draw, sample in zip(draws, samples, strict=True)]
        return [self[draw] for draw in draws]

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Any]:
        image, target = self.dataset[draw.sample]
        if self.transform is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(self.seed, "augment", draw.stream_index))
                image, target = self.transform(image, target)
        return self._marked(draw, image, target)

    def _marked(self, draw: Draw, image: Tensor, target: Any) -> tuple[Tensor, Any]:
        return image, target if self.marks is None else (target, bool(self.marks[draw.sample]))


def as_is(batch: Any) -> Any:
    """Return a batch that is one already."""
    return batch
