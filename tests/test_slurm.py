"""On a real SLURM of one node: sweeps, requeueing, failures, chains of arrays, wandb over a requeue."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raptor.utils.files import read_json

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "scripts" / "slurm_one_node.sh"
PROGRAMS = ("slurmctld", "slurmd", "squeue", "munged")

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.timeout_min=10",
    "trainer.enable_progress_bar=false",
]
SLOW = "+callbacks.slow={_target_: tests.slow.SlowSteps}"
TRAINING = [
    "study=study",
    "trainer.max_steps=150",
    "trainer.val_check_interval=50",
    "trainer.limit_val_batches=1",
    "callbacks.checkpoint.every_n_steps=10",
    "trainer.log_every_n_steps=1",
    "data.batch_size=16",
]


def call(*command: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, check=False)
    assert not check or found.returncode == 0, found.stdout + found.stderr
    return found


def raptor(command: str, *arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", f"raptor.{command}", *arguments, cwd=cwd, check=check)


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s; queue: {call('squeue', '-h').stdout}")


@contextmanager
def slurm(*options: str) -> Iterator[Path]:
    """A SLURM with two stand-in GPUs on each node; its folder."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons need root")
    if missing := [program for program in PROGRAMS if shutil.which(program, path=path) is None]:
        pytest.skip(f"no {missing[0]} here: apt-get install slurmctld slurmd slurm-client munge")
    folder = tempfile.mkdtemp(prefix="raptor-slurm-")  # not pytest's, which munge's user may not enter
    try:
        started = call(str(SCRIPT), "start", folder, *options)
        os.environ["SLURM_CONF"] = started.stdout.strip().removeprefix("export SLURM_CONF=")
        yield Path(folder)
    finally:
        os.environ.pop("SLURM_CONF", None)
        call(str(SCRIPT), "stop", folder, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """SLURM with one node."""
    with slurm():
        yield


def status(folder: Path) -> dict[str, Any]:
    return read_json(folder / "status.json") or {}


def rows(study: Path) -> tuple[list[dict[str, Any]], int]:
    found = raptor("status", str(study), "--json", cwd=study, check=False)
    return json.loads(found.stdout), found.returncode


def wait_for_the_end(study: Path, seconds: float = 180.0) -> dict[str, str]:
    def states() -> dict[str, str]:
        return {row["job"]: row["state"] for row in rows(study)[0]}

    until(lambda: not {"running", "waiting"} & set(states().values()), seconds)
    return states()


def restart_soon(ident: str) -> None:
    """A requeued job waits two minutes; not in a test."""
    until(lambda: "PENDING" in call("squeue", "-h", "-r", "-j", ident, "-o", "%T", check=False).stdout)
    call("scontrol", "update", f"JobId={ident}", "StartTime=now", check=False)


def limit_soon(folder: Path, ident: str) -> None:
    """Set a limit one to two minutes from now, once the job trains: how long it took to start does not matter."""
    until(lambda: step_of(folder) > 0)
    *_, minutes, _ = f"0:{call('squeue', '-h', '-j', ident, '-o', '%M').stdout.strip()}".split(":")
    call("scontrol", "update", f"JobId={ident}", f"TimeLimit={int(minutes) + 2}")


def step_of(folder: Path) -> int:
    found = status(folder)
    return int(found.get("step") or 0) if found.get("state") == "running" else 0


def submit(cwd: Path, *more: str, name: str = "run") -> str:
    raptor("train", "-m", *TRAINING, *ON_SLURM, f"name={name}", *more, cwd=cwd)
    return str(status(cwd / "runs" / "study" / name)["slurm"]["job"])


@pytest.fixture(scope="module")
def whole(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the weights of a training that nothing disturbed."""
    return undisturbed(tmp_path_factory.mktemp("whole"))


def undisturbed(folder: Path) -> str:
    raptor("train", *TRAINING, "trainer.enable_progress_bar=false", "name=run", cwd=folder)
    return fingerprint(folder / "runs" / "study" / "run")


def fingerprint(folder: Path) -> str:
    return str((read_json(folder / "result.json") or {})["weights_sha256"])


def requeue(folder: Path, ident: str) -> None:
    call("scontrol", "requeue", ident)
    restart_soon(ident)


def warn(folder: Path, ident: str) -> None:
    """SLURM's warning, as on preemption; the job asks to be requeued itself."""
    call("scancel", "--signal=USR2", ident)
    restart_soon(ident)


def kill(folder: Path, ident: str) -> None:
    os.kill(int(status(folder)["pid"]), signal.SIGKILL)
    until(lambda: ident not in call("squeue", "-h", "-r", "-o", "%i").stdout.split())
    (row,), code = rows(folder.parent)
    assert (row["state"], code) == ("stale", 1)
    submit(folder.parents[2])


def cancel(folder: Path, ident: str) -> None:
    call("scancel", ident)
    until(lambda: ident not in call("squeue", "-h", "-r", "-o", "%i").stdout.split())
    assert status(folder)["state"] == "interrupted"
    submit(folder.parents[2])


@pytest.mark.parametrize("disturb", [requeue, warn, kill, cancel])
def test_disturbed_jobs_end_in_the_same_weights(
    whole: str, tmp_path: Path, disturb: Callable[[Path, str], None]
) -> None:
    ident = submit(tmp_path, "data.num_workers=1" if disturb is warn else "data.num_workers=0")
    folder = tmp_path / "runs" / "study" / "run"
    until(lambda: step_of(folder) > 20)
    before = time.time()
    disturb(folder, ident)
    if disturb in (requeue, warn, cancel):  # the end was announced: the job saved what it had
        assert (folder / "checkpoints" / "last.ckpt").stat().st_mtime > before - 1
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    found = status(folder)
    assert found["attempt"] == 2
    assert found["preempted"] == (1 if disturb in (requeue, warn) else 0)
    assert fingerprint(folder) == whole


def test_out_of_time_and_on(whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real time limit: SLURM warns, the job saves and is requeued; once too often, and it fails and says why."""
    limits = ["hydra.launcher.signal_delay_s=90", "hydra.launcher.max_num_timeout=1"]
    monkeypatch.setenv("SLOW_STEPS", "0.8")  # longer than two attempts last
    ident = submit(tmp_path, *limits, SLOW)
    folder = tmp_path / "runs" / "study" / "run"
    limit_soon(folder, ident)
    until(lambda: status(folder).get("state") == "preempted")
    restart_soon(ident)
    limit_soon(folder, ident)
    until(lambda: status(folder).get("state") == "failed")
    assert "timed-out too many times" in status(folder)["error"]
    (row,), code = rows(folder.parent)
    assert (row["state"], code) == ("failed", 1)
    monkeypatch.setenv("SLOW_STEPS", "0")
    submit(tmp_path, SLOW)
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    assert fingerprint(folder) == whole


@pytest.mark.attack
def test_ten_random_kills(whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW_STEPS", "0.1")
    rng, folder = random.Random(0), tmp_path / "runs" / "study" / "run"
    kills = 0
    for _ in range(10):
        begun = status(folder).get("attempt", 0)
        submit(tmp_path, SLOW)
        until(lambda begun=begun: status(folder).get("attempt", 0) > begun and status(folder)["state"] == "running")
        time.sleep(rng.uniform(0.0, 4.0))
        found = status(folder)
        if found["state"] != "running":
            break
        os.kill(int(found["pid"]), signal.SIGKILL)
        kills += 1
        until(lambda: rows(folder.parent)[0][0]["state"] == "stale")
    monkeypatch.setenv("SLOW_STEPS", "0")
    submit(tmp_path, SLOW)
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    assert kills == 10
    assert fingerprint(folder) == whole


def test_a_sweep_over_two_gpus(cluster: None, tmp_path: Path) -> None:
    short = ["trainer.max_steps=5", "study=study", "trainer.limit_val_batches=1"]
    sweep = ["seed=0,1,2", "task=finetune,classifier", "name=${task.name}-${seed}"]
    raptor("train", "-m", *short, *sweep, *ON_SLURM, cwd=tmp_path)
    study = tmp_path / "runs" / "study"
    ended = wait_for_the_end(study)
    assert ended == dict.fromkeys(
        [f"{task}-{seed}" for task in ("classifier", "finetune") for seed in range(3)], "done"
    )
    found = [status(study / name) for name in ended]
    spans = [(s["started"], s["updated"], s["slurm"]["gpus"]) for s in found]
    assert {gpu for *_, gpu in spans} == {"0", "1"}
    for begin, end, gpu in spans:  # no two jobs had the same GPU at the same time
        assert sum(b < end and begin < e and g == gpu for b, e, g in spans) == 1
    record = read_json(study / "finetune-0" / "provenance.json") or {}
    assert record["attempts"][0]["slurm"]["job"] == found[3]["slurm"]["job"]
    assert {"torch", "submitit"} < set(record["versions"])
    report = raptor("report", "study=study", cwd=tmp_path)
    assert "| k=2" in report.stdout
    assert rows(study)[1] == 0


def test_one_bad_job_fails_alone_and_runs_alone_once_mended(cluster: None, tmp_path: Path) -> None:
    files = ["good.json", "late.json", "other.json"]
    phases = json.dumps({"num_layers": 12, "solver": "exact", "boundaries": {"2": [7]}})
    for name in (files[0], files[2]):
        (tmp_path / name).write_text(phases)
    short = ["trainer.max_steps=5", "study=study", "trainer.limit_val_batches=1", "surrogate.k=2"]
    command = ["-m", *short, f"surrogate.phases_file={','.join(files)}", *ON_SLURM]
    raptor("train", *command, cwd=tmp_path)
    study = tmp_path / "runs" / "study"
    states = wait_for_the_end(study)
    assert sorted(states.values()) == ["done", "done", "failed"]
    (bad,) = (row for row in rows(study)[0] if row["state"] == "failed")
    assert "late.json" in bad["why"]
    assert rows(study)[1] == 1
    ident = bad["status"]["slurm"]["job"]
    shown = call("scontrol", "show", "job", ident).stdout
    assert "JobState=FAILED" in shown
    logs = tmp_path / "runs" / ".launched" / "slurm"
    assert "late.json" in (logs / f"{ident}_0_log.err").read_text()
    (tmp_path / "late.json").write_text(phases)
    again = raptor("train", *command, cwd=tmp_path)
    assert "2 finished" in again.stderr
    assert "1 to run" in again.stderr
    assert set(wait_for_the_end(study).values()) == {"done"}
    assert sorted(status(study / name)["attempt"] for name in states) == [1, 1, 2]


def test_what_is_edited_after_submission_changes_nothing(cluster: None, tmp_path: Path) -> None:
    recipe = tmp_path / "mine" / "recipe" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    small = (REPOSITORY / "configs/recipe/small.yaml").read_text()
    recipe.write_text(small.replace("steps: 1000", "steps: 1"))
    arguments = ["--config-dir", str(recipe.parents[1]), "recipe=mine"]
    held = ["study=study", "name=run", "trainer.limit_val_batches=1", "+hydra.launcher.sbatch.hold=true"]
    raptor("train", "-m", *arguments, *ON_SLURM, *held, cwd=tmp_path)
    folder = tmp_path / "runs" / "study" / "run"
    assert status(folder)["state"] == "queued"
    recipe.write_text(small.replace("steps: 1000", "steps: 7"))
    call("scontrol", "release", status(folder)["slurm"]["job"])
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    assert (read_json(folder / "result.json") or {})["steps"] == 1
    log = folder.parents[1] / ".launched" / "slurm" / "code"
    assert (folder / "provenance.json").read_text().count(str(log)) == 1  # and the code was a copy, too


def wandb_history(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of an offline run: protobuf records in LevelDB's log format, 32 KiB blocks of checksummed pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, data = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record, data = Record.FromString(data), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_wandb_goes_on_over_a_requeue(cluster: None, tmp_path: Path) -> None:
    ident = submit(tmp_path, "logger=wandb")
    folder = tmp_path / "runs" / "study" / "run"
    until(lambda: step_of(folder) > 20)
    requeue(folder, ident)
    until(lambda: status(folder).get("attempt") == 2 and step_of(folder) > 60)
    os.kill(int(status(folder)["pid"]), signal.SIGKILL)
    until(lambda: rows(folder.parent)[0][0]["state"] == "stale")
    submit(tmp_path, "logger=wandb")
    assert wait_for_the_end(folder.parent) == {"run": "done"}
    written = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 3
    assert len({path.stem for path in written}) == 1  # one run, in three parts
    steps: list[int] = []
    for path in written:
        rows_logged = [row for row in wandb_history(path) if "train/loss" in row]
        assert all(row["_step"] == row["trainer/global_step"] for row in rows_logged)
        steps += [int(row["_step"]) for row in rows_logged]
    assert steps == list(range(150))


def test_all_stages_in_one_call(cluster: None, tmp_path: Path) -> None:
    small = "train=['seed=0','surrogate.k=2','trainer.max_steps=4','trainer.val_check_interval=4']"
    command = ["experiment=demo", *ON_SLURM[:-1], small]
    raptor("reproduce", *command, cwd=tmp_path)
    study = tmp_path / "runs" / "demo"
    queued = {row["job"]: row["status"]["slurm"]["job"] for row in rows(study)[0]}
    call("scancel", queued["blocks-seed0"])  # one is lost while the others wait: they wait for its successor, too
    until(lambda: queued["blocks-seed0"] not in call("squeue", "-h", "-o", "%i").stdout.split())
    raptor("reproduce", *command, cwd=tmp_path)
    lost, queued = queued, {row["job"]: row["status"]["slurm"]["job"] for row in rows(study)[0]}
    assert {job for job in queued if queued[job] != lost[job]} == {"blocks-seed0"}
    shown = call("scontrol", "show", "job", queued["report"]).stdout
    assert f"afterany:{queued['blocks-seed0']}(" in shown
    until(lambda: status(study / "blocks-seed0").get("state") == "finished")
    call("scancel", *{ident.split("_")[0] for ident in queued.values()})
    until(lambda: not call("squeue", "-h").stdout)
    done = {row["job"] for row in rows(study)[0] if row["state"] == "done"}
    assert {"teacher", "phases", "blocks-seed0"} <= done < set(queued)
    again = raptor("reproduce", *command, cwd=tmp_path)
    assert set(wait_for_the_end(study, 300).values()) == {"done"}
    assert all(status(study / job)["slurm"]["job"] == queued[job] for job in done), again.stdout
    assert (study / "report" / "report.html").is_file()
    third = raptor("reproduce", *command, cwd=tmp_path)
    assert not call("squeue", "-h").stdout, third.stdout
