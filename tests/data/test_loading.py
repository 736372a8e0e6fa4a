"""Errors of processes that load data reach the command as they were raised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from raptor.cli.messages import explain
from raptor.data.loading import Loader
from raptor.data.sampling import as_is
from raptor.errors import SampleError, StoreError


class Pictures:
    """Eight samples, one of which cannot be used."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        if i == 5:
            raise SampleError.of("file", Path("a/5.png"), "a picture", "repair it")
        return torch.tensor(i), i


class Batches(Pictures):
    """The same, served as whole batches, the last of which fails in another way."""

    def __getitems__(self, indices: list[int]) -> Any:
        if 7 in indices:
            raise StoreError.of("shard", 7, "the bytes that were written", "make it again")
        return torch.tensor(indices)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_worker_is_the_error(workers: int) -> None:
    batches = iter(Loader(Pictures(), batch_size=4, num_workers=workers))
    assert next(batches)[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(SampleError) as raised:
        next(batches)
    assert str(raised.value) == "file=a/5.png: expected a picture. Fix: repair it."
    assert explain(raised.value, "train", []) == str(raised.value)


def test_whole_batches_pass_through() -> None:
    batches = iter(Loader(Batches(), batch_size=4, collate_fn=as_is))
    assert next(batches).tolist() == [0, 1, 2, 3]
    with pytest.raises(StoreError, match=r"^shard=7: expected the bytes"):
        next(batches)


def test_batches_are_those_of_torch() -> None:
    data = TensorDataset(torch.arange(10), torch.rand(10, 3))
    torchs = torch.utils.data.DataLoader(data, batch_size=4)
    for ours, theirs in zip(Loader(data, batch_size=4), torchs, strict=True):
        assert all(map(torch.equal, ours, theirs))
