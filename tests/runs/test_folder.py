import json
from pathlib import Path

import pytest
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from raptor.errors import ConfigError, RunFolderError
from raptor.runs.folder import RunFolder, run_path
from raptor.runs.identity import identity


def config(tmp_path: Path, **changes: object) -> DictConfig:
    base = {
        "paths": {"runs": str(tmp_path / "runs"), "data": "data"},
        "study": "s",
        "name": "job",
        "seed": 0,
        "task": {"name": "t", "blocks": "${paths.runs}/s/other"},
        "logger": {"csv": 1},
    }
    return OmegaConf.merge(OmegaConf.create(base), OmegaConf.create(changes))  # type: ignore[return-value]


def status(run: RunFolder) -> dict:
    return json.loads((run.path / "status.json").read_text())


def test_a_finished_run_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    run = RunFolder(config(tmp_path), "t")
    assert run.result() is None
    with run.recording():
        assert status(run)["state"] == "running"
        assert run.result() is None
        run.finish({"metrics": {"val/top1": 0.5}})
    assert status(run)["state"] == "finished"
    again = RunFolder(config(tmp_path, logger={"csv": 2}), "t").result()
    assert again is not None
    assert again["metrics"] == {"val/top1": 0.5}


def test_a_result_without_a_finished_status_does_not_count(tmp_path: Path) -> None:
    run = RunFolder(config(tmp_path), "t")
    with run.recording():
        run.finish({"metrics": {}})
        run.update(state="running")
    assert run.result() is None


def test_failure_and_interruption_are_told_with_their_reason(tmp_path: Path) -> None:
    for error, state in ((ValueError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")):
        run = RunFolder(config(tmp_path), "t")
        with pytest.raises(type(error)), run.recording():
            raise error
        assert status(run)["state"] == state
    assert "boom" in (run.path / "log.txt").read_text()
    assert status(run)["attempt"] == 2
    with pytest.raises(ConfigError), run.recording():
        raise ConfigError("mend this")
    assert "mend this" in status(run)["error"]


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    run = RunFolder(config(tmp_path), "t")
    with run.recording():
        pass
    assert RunFolder(config(tmp_path, seed=3), "t").result() is None  # it made nothing yet, so it binds nobody
    (run.path / "checkpoints").mkdir()
    with pytest.raises(RunFolderError, match=r"seed: 0 there, 3 now.*Choose another name"):
        RunFolder(config(tmp_path, seed=3), "t").result()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = RunFolder(config(tmp_path), "t")
    run.path.mkdir(parents=True)
    with FileLock(run.path / ".lock"), pytest.raises(RunFolderError, match="in use"), run.recording():
        pass


def test_names_follow_the_configuration_alone(tmp_path: Path) -> None:
    one, same, other = (run_path(config(tmp_path, name=None, seed=seed), "t-seed0") for seed in (0, 0, 1))
    assert one == same != other
    assert one.name.startswith("t-seed0-")
    moved = config(tmp_path / "elsewhere", name=None)
    assert run_path(moved, "t-seed0").name == one.name
    assert identity(moved)["task.blocks"] == "<paths.runs>/s/other"


def test_a_run_whose_inputs_changed_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "phases.json"
    source.write_text("{}")
    changes = {"task": {"blocks": str(source)}}
    with RunFolder(config(tmp_path, **changes), "t").recording():
        RunFolder(config(tmp_path, **changes), "t")
    run = RunFolder(config(tmp_path, **changes), "t")
    with run.recording():
        run.finish({"metrics": {}})
    assert run.result() is not None
    source.write_text("[]")
    with pytest.raises(RunFolderError, match=r"made from another task\.blocks=.*delete that folder"):
        run.result()
