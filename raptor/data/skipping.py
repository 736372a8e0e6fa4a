"""Leave out the files of a data set that cannot be used, and report which: ``data.on_error=skip``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from raptor.data.listing import describe_passed_over
from raptor.data.loading import Loader
from raptor.data.sampling import StepSampler
from raptor.errors import ConfigError, SampleError

ON_ERROR = ("raise", "skip")
log = logging.getLogger(__name__)


class Omissions:
    """Record of what a data set leaves out: files that cannot be used, and files that are no pictures.

    Attributes
    ----------
    skipped
        Reasons for the files that were left out, in order of appearance, each once.
    passed_over
        For each folder, how many files by extension were not looked at.
    """

    on_error: str

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, None] = {}
        self.passed_over: dict[str, dict[str, int]] = {}

    def unusable(self, error: SampleError) -> None:
        """Raise an error about a file, or record it, as ``data.on_error`` says.

        Raises
        ------
        SampleError
            Unless it says ``skip``.
        """
        if self.on_error != "skip":
            raise error
        self.report_skipped(str(error))

    def report_skipped(self, reason: str) -> None:
        """Record a file that was left out, and log it the first time."""
        if reason not in self.skipped:
            log.warning("left out: %s", reason)
            self.skipped[reason] = None

    def report_passed_over(self, folder: str, counts: Mapping[str, int]) -> None:
        """Record how many files of a folder were not looked at, and log it the first time."""
        if counts and self.passed_over.get(folder) != counts:
            log.warning("%s: passed over %s", folder, describe_passed_over(counts))
            self.passed_over[folder] = dict(counts)

    def omissions(self) -> dict[str, Any]:
        """Return plain data about what was left out, for results."""
        skipped = {"skipped": list(self.skipped)} if self.on_error == "skip" else {}
        return skipped | ({"passed_over": self.passed_over} if self.passed_over else {})

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the files that were left out so far."""
        return {"skipped": list(self.skipped)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` kept."""
        self.skipped |= dict.fromkeys(state_dict["skipped"])


@dataclass(frozen=True)
class Skipped:
    """Stand-in for a sample that cannot be used.

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


class SkippingLoader(Loader):
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
                raise nothing_left(skipped[0])


def nothing_left(reason: str) -> ConfigError:
    """Return the error for a training batch whose every file was left out, such as one for the given reason."""
    expected = f"a usable file in every training batch, all of one were left out, such as: {reason}"
    return ConfigError.of("data.on_error", "skip", expected, "repair the files, or set a larger data.batch_size")


class Attempts(Dataset[Any]):
    """A dataset that tries: ``(image, target, reason)``, the reason empty, or why the file cannot be used.

    In the place of an image that cannot be used stand zeros, and -1 in the place of its target.

    Parameters
    ----------
    dataset
        Gives ``(image, target)``, or raises :class:`~raptor.errors.SampleError`.
    shape
        Shape of an image.
    """

    def __init__(self, dataset: Any, shape: tuple[int, int, int]) -> None:
        self.dataset, self.shape = dataset, shape

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[Tensor, Any, str]:
        try:
            return *self.dataset[i], ""
        except SampleError as error:
            return torch.zeros(self.shape, dtype=torch.uint8), -1, str(error)


def _collate(samples: Sequence[Any]) -> tuple[Any, list[str]]:
    skipped = [sample.reason for sample in samples if isinstance(sample, Skipped)]
    good = [sample for sample in samples if not isinstance(sample, Skipped)]
    return default_collate(good) if good else None, skipped
