"""Curves are written before the state that follows from them, whole and once."""

from __future__ import annotations

from pathlib import Path

from raptor.runs.history import curves, read_metrics
from raptor.training.curves import Curves, Journal


def lines(folder: Path) -> list[str]:
    return (folder / "metrics" / "metrics.jsonl").read_text().splitlines()


def test_the_row_of_a_saved_step_is_there_before_it_is_logged(tmp_path: Path) -> None:
    logger = Curves(str(tmp_path))
    logger.begin(0)
    logger.log_metrics({"lr": 0.5, "epoch": 0}, step=0)
    logger.commit({"step": 0, "loss": 2.0})
    assert lines(tmp_path) == ['{"step": 0, "lr": 0.5}', '{"step": 0, "loss": 2.0}']
    logger.log_metrics({"loss": 2.0, "epoch": 0}, step=0)  # Lightning logs it after the state was saved
    assert len(lines(tmp_path)) == 2
    logger.log_metrics({"loss": 2.0, "epoch": 0}, step=1)
    logger.commit(None)
    assert lines(tmp_path)[2:] == ['{"step": 1, "loss": 2.0}']


def test_an_attempt_begins_where_the_state_was_saved(tmp_path: Path) -> None:
    first = Curves(str(tmp_path))
    for step in range(5):
        first.log_metrics({"loss": float(step)}, step=step)
    path = tmp_path / "metrics" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5, "lo')  # it died while it wrote
    again = Curves(str(tmp_path))
    again.begin(3)
    again.log_metrics({"loss": 30.0, "val": 1.0}, step=3)
    again.finalize("failed")
    assert curves(read_metrics(tmp_path)) == {"loss": [[0, 0.0], [1, 1.0], [2, 2.0], [3, 30.0]], "val": [[3, 1.0]]}
    assert (tmp_path / "metrics" / "metrics.csv").read_text() == "step,loss,val\n0,0.0,\n1,1.0,\n2,2.0,\n3,30.0,1.0\n"


def test_a_journal_that_nothing_is_cut_from_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "rows")
    assert journal.cut(0) == []
    journal.append([{"step": 1}, {"step": 2}])
    before = journal.path.stat()
    assert journal.cut(3) == [{"step": 1}, {"step": 2}]
    assert journal.path.stat().st_ino == before.st_ino
    assert journal.cut(2) == [{"step": 1}]
