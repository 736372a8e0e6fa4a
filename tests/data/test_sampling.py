from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch

from raptor.data.digits import Digits
from raptor.data.sampling import StepSampler, TrainingSet, limit_batch
from raptor.errors import ConfigError


def flat(sampler: StepSampler) -> list[Any]:
    return [draw for batch in sampler for draw in batch]


def test_every_pass_sees_every_sample_once_in_a_new_order() -> None:
    draws = flat(StepSampler(10, 4, steps=10, seed=0))
    assert [d.stream_index for d in draws] == list(range(40))
    passes = [[d.sample for d in draws[i : i + 10]] for i in range(0, 40, 10)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4


def test_a_resume_continues_with_the_very_next_batch() -> None:
    whole = list(StepSampler(23, 8, steps=30, seed=5))
    for first in (1, 2, 3, 17, 29):
        assert list(StepSampler(23, 8, 30, 5, first_step=lambda first=first: first)) == whole[first:]
    assert len(StepSampler(23, 8, 30, 5, first_step=lambda: 17)) == 30


def test_seeds_differ() -> None:
    assert flat(StepSampler(50, 5, 10, seed=0)) != flat(StepSampler(50, 5, 10, seed=1))


def test_processes_share_each_batch_without_overlap() -> None:
    whole = list(StepSampler(31, 8, steps=9, seed=1))
    shares = [list(StepSampler(31, 8, 9, 1, rank=rank, world_size=4)) for rank in range(4)]
    for step, batch in enumerate(whole):
        assert Counter(d for share in shares for d in share[step]) == Counter(batch)
        assert all(len(share[step]) == 2 for share in shares)


def test_processes_have_equal_shares_or_none() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.batch_size=8: expected a multiple of 3, the number of processes\. Fix: set 9"
    ):
        StepSampler(31, 8, 9, 1, world_size=3)


def test_augmentation_depends_on_seed_and_draw_alone() -> None:
    data = [(torch.zeros(1, 2, 2), i) for i in range(6)]
    draws = flat(StepSampler(6, 3, steps=4, seed=0))

    def images(order: list[Any], seed: int) -> dict[Any, Any]:
        training = TrainingSet(data, lambda image, label: (image + torch.randn(()), label), seed)
        return {draw.stream_index: training[draw][0].sum().item() for draw in order}

    first = images(draws, 0)
    torch.manual_seed(1234)
    before = torch.random.get_rng_state()
    assert images(list(islice(reversed(draws), 12)), 0) == first
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(set(first.values())) == 12
    assert images(draws, 1) != first


def test_a_batch_larger_than_the_data_set_is_the_data_set(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        assert limit_batch(40, 40, "mine") == 40
        assert not caplog.records
        assert limit_batch(100_000, 40, "mine") == 40
    assert caplog.messages == ["data.batch_size=100000: mine has 40 training images, which all make a batch"]

    data = Digits(batch_size=100_000)
    data.prepare((1, 8, 8), [0.5], [0.5])
    assert data.batch_size == len(data.train_images)
