from pathlib import Path

from raptor.runs.history import curves, read_metrics


def write(folder: Path, attempt: int, text: str) -> None:
    path = folder / "metrics" / f"version_{attempt}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_attempts_are_joined_and_the_later_one_counts(tmp_path: Path) -> None:
    write(tmp_path, 0, "epoch,step,loss,val\n0,0,1.0,\n0,10,0.9,\n0,10,,0.5\n0,20,7.0,\n")
    write(tmp_path, 1, "epoch,step,loss\n0,20,0.8\n0,30,0.7\n")
    metrics = read_metrics(tmp_path)
    assert metrics["loss"].tolist() == [1.0, 0.9, 0.8, 0.7]
    assert curves(metrics) == {
        "loss": [[0, 1.0], [10, 0.9], [20, 0.8], [30, 0.7]],
        "val": [[10, 0.5]],
    }


def test_long_curves_are_thinned_and_none_is_no_error(tmp_path: Path) -> None:
    write(tmp_path, 0, "step,loss\n" + "".join(f"{i},{i / 2}\n" for i in range(1000)))
    thin = curves(read_metrics(tmp_path), points=50)["loss"]
    assert len(thin) == 50
    assert thin[1] == [20, 10.0]
    assert curves(read_metrics(tmp_path / "none")) == {}


def test_a_run_that_an_earlier_release_began_is_continued_in_one_file(tmp_path: Path) -> None:
    write(tmp_path, 0, "epoch,step,loss,val\n0,0,1.0,\n0,10,0.9,\n0,10,,0.5\n0,20,7.0,\n")
    (tmp_path / "metrics" / "metrics.jsonl").write_text(
        '{"step": 20, "loss": 0.8}\n{"step": 20, "val": 0.6}\n{"step": 30, "lo'
    )
    assert curves(read_metrics(tmp_path)) == {
        "loss": [[0, 1.0], [10, 0.9], [20, 0.8]],
        "val": [[10, 0.5], [20, 0.6]],
    }
