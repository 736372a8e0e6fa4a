"""Leaving out the files of a data set that cannot be used, and saying which: ``data.on_error=skip``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from raptor.data.sampling import StepSampler
from raptor.errors import ConfigError, SampleError

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class Skipped:
    """What stands in the place of a sample that cannot be used.

    Parameters
    ----------
    reason
        The error, which names the file.
    """

    reason: str


class Lenient(Dataset[Any]):
    """A dataset that gives :class:`Skipped` where the given one raises :class:`~raptor.errors.SampleError`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: Any) -> Any:
        try:
            return self.dataset[i]
        except SampleError as error:
            return Skipped(str(error))


class SkippingLoader(DataLoader):
    """A loader over a :class:`Lenient` dataset: batches of what is good, reports of what is not.

    Parameters
    ----------
    dataset
        Raises :class:`~raptor.errors.SampleError` for samples that cannot be used.
    report
        Called in the main process with the reason for each sample that was left out.
    **kwargs
        Of torch's ``DataLoader``.
    """

    def __init__(self, dataset: Any, report: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(Lenient(dataset), collate_fn=_collate, **kwargs)
        self.report = report

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch, skipped in super().__iter__():
            for reason in skipped:
                self.report(reason)
            if batch is not None:
                yield batch
            elif isinstance(self.batch_sampler, StepSampler):  # a step needs something to learn from
                raise ConfigError(f"data.on_error=skip left nothing of a training batch: {skipped[0]}")


def _collate(samples: Sequence[Any]) -> tuple[Any, list[str]]:
    skipped = [sample.reason for sample in samples if isinstance(sample, Skipped)]
    good = [sample for sample in samples if not isinstance(sample, Skipped)]
    return default_collate(good) if good else None, skipped
