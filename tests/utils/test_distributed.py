"""Which environment variables make a process one of several."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raptor.utils import distributed

LEFT_BEHIND = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "3"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LEFT_BEHIND, "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", distributed.STARTER):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        (LEFT_BEHIND, 0),
        ({**LEFT_BEHIND, distributed.STARTER: "1"}, 0),  # of a process that is no longer the parent
        ({**LEFT_BEHIND, distributed.STARTER: str(os.getppid())}, 3),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "1"}, 0),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, 3),
        ({"RANK": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}, 2),
    ],
)
def test_a_rank_counts_in_a_process_that_was_started_as_one_of_several(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], rank: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert distributed.rank() == rank


def test_what_is_left_behind_is_removed_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in LEFT_BEHIND.items():
        monkeypatch.setenv(name, value)
    distributed.claim_ranks()
    assert "RANK=3, LOCAL_RANK=3, WORLD_SIZE=4, SLURM_PROCID=3: ignored" in caplog.text
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)
    assert os.environ["SLURM_PROCID"] == "0"
    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning does for its children
    monkeypatch.setenv("WORLD_SIZE", "2")
    program = "from raptor.utils import distributed; print(distributed.rank())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"1\n"
