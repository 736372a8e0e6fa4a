"""Rewriting of the command line before Hydra reads it."""

from __future__ import annotations

import pytest

from raptor.cli import sweeps
from raptor.cli.arguments import with_new_keys
from raptor.errors import ConfigError
from raptor.train import main


def test_a_mapping_brings_keys_that_the_file_lacks() -> None:
    (job,) = sweeps.jobs("train", with_new_keys(["teacher=timm", "teacher.options={img_size: 32, depth: 8}"]))
    assert job.config.teacher.options == {"img_size": 32, "depth": 8}


def test_unknown_keys_of_a_mapping_are_named_by_the_typed_options() -> None:
    (job,) = sweeps.jobs("train", with_new_keys(["data={foo: 3}"]))
    with pytest.raises(ConfigError, match=r"data\.foo=3: expected one of the keys of data: batch_size"):
        main.parse(job.config)


@pytest.mark.parametrize("argument", ["seed=1", "k=[1,2]", "+new={a: 1}", "hydra.job.env_set={A: 1}", "name='{a}'"])
def test_other_arguments_stay(argument: str) -> None:
    assert with_new_keys([argument]) == [argument]
