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


def test_null_in_a_sweep_over_a_group_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method=fast,null: expected options of the group.*sweep over method=fast,"):
        sweeps.jobs("train", ["method=fast,null"])


def test_status_shows_what_stands_in_the_place_of_tied_blocks() -> None:
    tied, untied = (main.parse(job.config).about for job in sweeps.jobs("train", ["surrogate=k3,untied"]))
    assert tied == {"task": "finetune", "k": 3}
    assert untied == {"task": "finetune", "k": 2, "method": "untied"}
