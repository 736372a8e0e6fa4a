import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from raptor.errors import ConfigError, RunFolderError
from raptor.runs.folder import RunFolder
from raptor.runs.identity import identity
from raptor.runs.migration import roots
from raptor.runs.options import RunOptions
from raptor.utils.options import option, parse
from raptor.utils.options import options as typed


@typed
class Options(RunOptions):
    command: ClassVar[str] = "t"

    seed: int = option("Seed", default=0)
    blocks: str = option("A folder that the run builds on", default="")
    logger: int = option("A part that only watches", default=1, identity=False)


def folder(tmp_path: Path, default_name: str = "t", **changes: Any) -> RunFolder:
    runs = str(tmp_path / "runs")
    values = {"paths": {"runs": runs}, "study": "s", "name": "job", "blocks": f"{runs}/s/other", **changes}
    return RunFolder(parse(Options, values), OmegaConf.create(values), default_name)


def status(run: RunFolder) -> dict[str, Any]:
    return json.loads((run.path / "status.json").read_text())


def test_a_finished_run_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    run = folder(tmp_path)
    assert run.result() is None
    with run.recording():
        assert status(run)["state"] == "running"
        assert run.result() is None
        run.finish({"metrics": {"val/top1": 0.5}})
    assert status(run)["state"] == "finished"
    again = folder(tmp_path, logger=2).result()
    assert again is not None
    assert again["metrics"] == {"val/top1": 0.5}


def test_a_result_without_a_finished_status_does_not_count(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with run.recording():
        run.finish({"metrics": {}})
        run.update(state="running")
    assert run.result() is None


def test_failure_and_interruption_are_told_with_their_reason(tmp_path: Path) -> None:
    for error, state in ((ValueError("boom"), "failed"), (KeyboardInterrupt(), "interrupted")):
        run = folder(tmp_path)
        with pytest.raises(type(error)), run.recording():
            raise error
        assert status(run)["state"] == state
    assert "boom" in (run.path / "log.txt").read_text()
    assert status(run)["attempt"] == 2
    with pytest.raises(ConfigError), run.recording():
        raise ConfigError("mend this")
    assert "mend this" in status(run)["error"]


OUT_OF_TIME = """
import os, signal, sys
from pathlib import Path
from raptor.runs.record import Record
from raptor.utils import signals

def refuse(signum, frame):
    raise RuntimeError("timed-out too many times")

signal.signal(signal.SIGUSR2, refuse)  # as submitit's handler does in the end
signals.install(grace=2.0)
record = Record(Path(sys.argv[1]), {}, has_result=True)
record.begin({})
try:
    os.kill(os.getpid(), signal.SIGUSR2)
except Exception as error:
    record.end(error)
"""


def test_a_job_that_slurm_continues_no_more_has_failed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OUT_OF_TIME, tmp_path], check=True)
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["state"] == "failed"
    assert "timed-out too many times" in found["error"]
    assert "the same command continues" in found["error"]


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with run.recording():
        pass
    assert folder(tmp_path, seed=3).result() is None  # it made nothing yet, so it binds nobody
    (run.path / "checkpoints").mkdir()
    with pytest.raises(RunFolderError, match=r"seed is 0 there, 3 here.*choose another name"):
        folder(tmp_path, seed=3).result()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.path.mkdir(parents=True)
    with FileLock(run.path / ".lock"), pytest.raises(RunFolderError, match="in use"), run.recording():
        pass


def test_names_follow_the_configuration_alone(tmp_path: Path) -> None:
    one, same, other = (folder(tmp_path, "t-seed0", name=None, seed=seed).path for seed in (0, 0, 1))
    assert one == same != other
    assert one.name.startswith("t-seed0-")
    moved = folder(tmp_path / "elsewhere", "t-seed0", name=None)
    assert moved.path.name == one.name
    assert identity(moved.options, roots(moved.options))["blocks"] == "<paths.runs>/s/other"


def test_a_run_whose_inputs_changed_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "phases.json"
    source.write_text("{}")
    changes = {"blocks": str(source)}
    with folder(tmp_path, **changes).recording():
        folder(tmp_path, **changes)
    run = folder(tmp_path, **changes)
    with run.recording():
        run.finish({"metrics": {}})
    assert run.result() is not None
    source.write_text("[]")
    with pytest.raises(RunFolderError, match=r"blocks=.*the same content as when.*delete that folder"):
        run.result()
