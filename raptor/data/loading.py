"""Load batches in worker processes, whose errors reach the main process as they were raised."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from raptor.errors import RaptorError


@dataclass(frozen=True)
class Failure:
    """Stand-in for a batch that cannot be made.

    Parameters
    ----------
    error
        What was raised in its place.
    """

    error: RaptorError


class Guarded(Dataset[Any]):
    """A dataset of lists of samples that gives :class:`Failure` where the given one raises a RaptorError."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: Sequence[Any]) -> Any:
        try:
            if hasattr(self.dataset, "__getitems__"):
                return self.dataset.__getitems__(indices)
            return [self.dataset[i] for i in indices]
        except RaptorError as error:
            return Failure(error)


class Loader(DataLoader[Any]):
    """A loader of batches that raises the errors of its workers as they are; torch's turns them into text.

    Parameters
    ----------
    dataset
        Samples, or lists of them by ``__getitems__``.
    collate_fn
        Function from a list of samples to a batch.
    **kwargs
        Of torch's ``DataLoader``.
    """

    def __init__(self, dataset: Any, collate_fn: Callable[[Any], Any] = default_collate, **kwargs: Any) -> None:
        super().__init__(Guarded(dataset), collate_fn=functools.partial(_collate, collate_fn), **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Failure):
                raise batch.error
            yield batch


def _collate(collate_fn: Callable[[Any], Any], samples: Any) -> Any:
    return samples if isinstance(samples, Failure) else collate_fn(samples)
