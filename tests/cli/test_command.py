"""Commands as users call them: what they print, how they end, and what they leave behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raptor.cli.arguments import check_encoding
from raptor.errors import ConfigError
from tests.conftest import start

SMALL = ("trainer.max_steps=2", "trainer.enable_progress_bar=false", "trainer.limit_val_batches=1")


def test_config_is_printed_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', '--cfg', 'job']\n"
        "from raptor.train import main\n"
        "main()\n"
        "assert not {'torch', 'pytorch_lightning', 'timm', 'matplotlib', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_target_: raptor.tasks.distillation.options.FinetuneOptions" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (
            "train",
            ["optimizer=null"],
            r"optimizer=null: expected an option of the group: adamw, muon\. Fix: choose one",
        ),
        ("train", ["hydra/launcher=null"], r"hydra/launcher=null: expected an option of the group: .*slurm"),
        ("train", ["task=null"], r"task=\?\?\?: expected an option of the group, not null\. Fix: set task"),
        (
            "train",
            ["trainer=null"],
            r"callbacks\.progress\.every=\$\{trainer\.refresh_every\}: .*choose an option of trainer",
        ),
        (
            "train",
            ["~name"],
            r"~name=null: expected what can be deleted \(.*'name' does not exist.*Fix: leave out ~name",
        ),
        ("train", ["sead=1"], r"sead=1: expected a key that exists\. Fix: write seed, or remove it"),
        ("train", ["trainer.max_step=1"], r"trainer\.max_step=1: .*write trainer\.max_steps"),
        ("train", ["max_steps=1"], r"max_steps=1: .*write .*trainer\.max_steps"),
        ("train", ["+colour=1"], "colour=1: expected a key that exists"),
        ("train", ["task=destill"], "(?s)destill.*distill"),
        ("train", ["surrogate.k=13"], r"surrogate\.k=13: expected an integer from 1 to 12"),
        ("train", ["surrogate.k=0"], r"surrogate\.k=0: expected integer >= 1 or null\. Fix: "),
        ("train", ["surrogate.boundaries=[10,7]"], r"boundaries=\[10,7\]: expected strictly increasing .*out of order"),
        ("train", ["surrogate.boundaries=[7,12]"], r"boundaries=\[7,12\]: expected .*within 1\.\.11 of 12 layers"),
        ("train", ["surrogate.boundaries=7"], r"surrogate\.boundaries=7: expected list of integer or null"),
        (
            "train",
            ["surrogate=k3", "surrogate.k=2"],
            r"surrogate\.k=2: expected 3, as surrogate\.boundaries=\[7,10\] make, or null",
        ),
        ("train", ["surrogate.solver=magic"], r"surrogate\.solver=magic: expected exact or .*greedy"),
        ("train", ["surrogate.phases_file=none.json"], r"none\.json: expected a file that exists"),
        ("train", ["surrogate.phases_file=broken.json"], r"broken\.json: expected a phases\.json"),
        ("train", ["surrogate.phases_file=D.npy"], r"D\.npy: expected a phases\.json"),
        (
            "train",
            ["+surrogate.colour=1"],
            r"surrogate\.colour=1: expected one of the keys of surrogate: k, boundaries",
        ),
        (
            "train",
            ["+surrogate.block.colour=1"],
            r"surrogate\.block\.colour=1: expected one of the keys of surrogate\.block",
        ),
        ("train", ["+task.colour=1"], r"task\.colour=1: expected one of the keys of task: name, optimizer"),
        ("train", ["+trainer.colour=1"], r"trainer\.colour=1: expected one of the keys of trainer"),
        ("train", ["+recipe.colour=1"], r"recipe\.colour=1: expected one of the keys of recipe"),
        ("train", ["trainer.precision=17"], r"trainer\.precision=17: expected 32-true or bf16-mixed"),
        ("train", ["trainer.precision=16-mixed"], "trainer.accelerator=cpu: float16 needs a GPU"),
        (
            "train",
            ["trainer.precision=16-mixed", "trainer.accelerator=gpu"],
            "no scaling of gradients with",
        ),
        ("train", ["trainer.precision=16-true"], "expected 32-true or bf16-mixed or 16-mixed"),
        (
            "train",
            ["trainer.profiler=magic"],
            r"trainer\.profiler=magic: expected simple or advanced or pytorch or null",
        ),
        ("train", ["task=linear_probe", "trainer.recompute=true"], "trainer.recompute=true: expected false"),
        ("train", ["trainer.compile=perhaps"], r"trainer\.compile=perhaps: expected true or false"),
        (
            "train",
            ["trainer.refresh_every=0"],
            r"trainer\.refresh_every=0: expected integer >= 1",
        ),
        ("train", ["task.rollout_growth=1.5"], r"task\.rollout_growth=1\.5: expected number from 0 to 1"),
        (
            "train",
            ["method=fast", "surrogate.block.mlp=swiglu"],
            r"surrogate\.init=mean: expected random \(mlp\.fc1.*mlp=gelu",
        ),
        ("train", ["method=slow"], "(?s)slow.*fast"),
        ("train", ["seed=abc"], "seed=abc: expected integer >= 0"),
        ("train", ["teacher.weights=nowhere"], "teacher.weights=nowhere: expected a file that exists"),
        ("train", ["teacher.weights=package:nothing"], "package:nothing: expected a file that exists"),
        ("train", ["teacher.options.embed_dim=96"], r"expected the weights of this model.*\(48,\), expected \(96,\)"),
        ("train", ["task.blocks=nowhere"], "task.blocks=nowhere: expected a run folder that exists"),
        (
            "train",
            ["task=linear_probe", "task.backbone=nowhere"],
            "=nowhere: expected a run folder that exists",
        ),
        (
            "train",
            ["task=distill", "surrogate.phases=[[5,5]]"],
            r"surrogate\.phases=\[\[5,5\]\]: expected pairs of layers",
        ),
        ("train", ["task=distill", "surrogate.phases=all"], "set surrogate.phases_file"),
        ("train", ["teacher=timm", "teacher.name=vit_base_patch9"], "expected a model of timm"),
        (
            "train",
            ["trainer.max_steps=-5"],
            r"trainer\.max_steps=-5: expected integer >= -1 or null",
        ),
        ("train", ["data=ade20k"], r"ADEChallengeData2016: expected ROOT/images.*no folder images/training"),
        (
            "train",
            ["data=nyuv2", "data.root=here"],
            r"data\.root=here: .*there is no data/nyu2_train\.csv",
        ),
        ("train", ["data.on_error=pass"], "data.on_error=pass: expected raise or skip"),
        (
            "train",
            ["task=depth_probe"],
            "data=digits: expected data with depth targets for task=depth_probe",
        ),
        ("train", ["task=linear_probe", "task.layer=13"], r"layers=0\.\.13: expected a range within 0\.\.12"),
        (
            "train",
            ["experiment=table1/blocks", "trainer=cpu"],
            "teacher.head=data/heads/dinov2_vitb14_reg4_linear_head.pth",
        ),
        (
            "train",
            ["experiment=table1/surrogates"],
            r"task\.blocks=runs/table1/block-0-7-r0: expected a finished run \(it is: does not exist\), .*-7-12-r0 "
            r"\(does not exist\)\. Fix: run python -m raptor.train -m experiment=table1/blocks first",
        ),
        (
            "train",
            ["experiment=small_scale/fits"],
            r"teacher\.weights=runs/small_scale/teacher-p0.0-s0: expected a finished run .*"
            "run python -m raptor.train -m experiment=small_scale/teachers first",
        ),
        ("train", ["task=partitions", "task.ks=[13]"], r"task\.ks=13: expected an integer from 1 to 12"),
        (
            "train",
            ["task=partitions", "surrogate.k=2"],
            r"surrogate\.k=2: expected null: task=partitions cuts by itself",
        ),
        ("train", ["teacher.weights=null", "teacher.drop_path=1.0"], r"teacher\.drop_path=1\.0: expected number"),
        (
            "train",
            ["data=image_folder"],
            r"data\.root=data/pictures: .*there is no folder train",
        ),
        ("train", ["task=classifier", "teacher.weights=null", "teacher.options.num_classes=7"], "num_classes=10"),
        ("phases", ["k=13", "distance=D.npy"], "k=13: expected an integer from 1 to 12"),
        ("phases", ["distance=nowhere.npy"], r"distance=nowhere\.npy: expected a \.npy file that exists"),
        ("phases", ["distance=S.npy"], "1 - S"),
        ("phases", ["eps=0.1"], "solver=greedy"),
        ("phases", ["images=0"], "images=0: expected integer >= 1 or null"),
        ("phases", ["tokens=[hats]"], r"tokens=\[hats\]: expected list of"),
        ("report", ["study=nothing"], "study=nothing: expected a study with a finished run"),
    ],
)
def test_bad_input_gets_one_message_and_leaves_nothing_finished(
    call: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    arguments: list[str],
    said: str,
) -> None:
    D = 1.0 - np.eye(12)
    np.save(tmp_path / "D.npy", D)
    np.save(tmp_path / "S.npy", 1 - D)
    (tmp_path / "broken.json").write_text('{"num_layers": 12}')
    with pytest.raises(SystemExit) as ended:
        call(command, *arguments)
    message = str(ended.value)
    assert message.startswith("error: ")
    assert re.search(said, message), message
    assert not list(tmp_path.rglob("result.json"))
    assert not [p for p in tmp_path.rglob("status.json") if json.loads(p.read_text())["state"] == "finished"]


def test_an_error_ends_the_process_with_a_code_and_no_traceback(tmp_path: Path) -> None:
    process = start("train", "surrogate.k=13", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "an integer from 1 to 12" in output


def test_phases_of_a_saved_matrix(call: Callable[..., None], tmp_path: Path) -> None:
    labels = np.array([0] * 4 + [1] * 3 + [2] * 5)
    np.save(tmp_path / "D.npy", (labels[:, None] != labels[None, :]).astype(float))
    call("phases", "distance=D.npy", "k=3", "name=three")
    folder = tmp_path / "runs" / "default" / "three"
    phases = json.loads((folder / "phases.json").read_text())
    assert phases["boundaries"] == {"3": [4, 7]}
    assert phases["solver"] == "exact"
    assert phases["measures"]["3"]["share"] == 1.0
    assert phases["random"]["3"]["share_mean"] < 1
    assert np.load(folder / "distance.npy").shape == (12, 12)
    assert (folder / "heatmap.png").stat().st_size > 5000
    assert (folder / "heatmap.pdf").is_file()
    # a file may change under its name: it is read again
    np.save(tmp_path / "D.npy", (labels[::-1, None] != labels[None, ::-1]).astype(float))
    call("phases", "distance=D.npy", "k=3", "name=three")
    assert json.loads((folder / "phases.json").read_text())["boundaries"] == {"3": [5, 8]}


def test_phases_hold_the_evidence_for_them(call: Callable[..., None], tmp_path: Path) -> None:
    call("phases", "k=[2,3]", "solver=normalised", "distance=cka", "images=400", "draws=19", "resamples=8", "name=cka")
    folder = tmp_path / "runs" / "default" / "cka"
    phases = json.loads((folder / "phases.json").read_text())
    assert (phases["measure"], phases["solver"], phases["tokens"]) == ("cka", "normalised", ["cls", "patches"])
    assert phases["equal"]["3"]["boundaries"] == [4, 8]
    assert phases["nulls"]["draws"] == 19
    assert 0.05 <= phases["nulls"]["toeplitz"]["3"]["contrast"]["p"] <= 1
    assert 0.05 <= phases["nulls"]["layers"]["2"]["share"]["p"] <= 1
    assert set(phases["nulls"]["significant"]) == {"2", "3"}
    assert phases["stability"]["resamples"] == 8
    assert 0 <= phases["stability"]["3"]["same"] <= 1
    other = json.loads((tmp_path / "runs" / "default" / "cka" / "result.json").read_text())
    assert other["phases"] == phases


def test_teachers_side_by_side(call: Callable[..., None], tmp_path: Path) -> None:
    """Six architectures of timm with random weights, made small; one without a class token; one that ships."""
    small = "options: {img_size: 16, patch_size: 8, embed_dim: 24, num_heads: 2, depth: 4"
    names = ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_base_patch16_siglip_224", "deit3_small_patch16_224"]
    names += ["vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224"]
    entries = [f"{{name: {name}, {small}}}}}" for name in names]
    call(
        "phases",
        "k=2",
        "tokens=auto",
        "images=20",
        "draws=19",
        f"teachers=[{','.join(entries)},digits_vit]",
        "name=six",
    )
    folder = tmp_path / "runs" / "default" / "six"
    result = json.loads((folder / "result.json").read_text())
    assert list(result["teachers"]) == [*names, "digits_vit"]
    assert result["teachers"]["vit_base_patch16_siglip_224"]["phases"]["tokens"] == ["patches"]
    assert result["teachers"]["digits_vit"]["phases"]["num_layers"] == 12
    assert len(result["teachers"]["vit_tiny_patch16_224"]["distance"]) == 4
    assert (folder / "teachers.png").stat().st_size > 20_000
    assert (folder / "digits_vit" / "phases.json").is_file()
    call("report", "study=default")
    assert list((tmp_path / "runs" / "default" / "report" / "figures").glob("teachers_six.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distance=euclid"], "distance=euclid: expected cosine, centred, mse, cka or a path that ends in .npy"),
        (["distance=D.npy", "teachers=[digits_vit]"], "teachers=[digits_vit]: expected [] with distance=D.npy"),
        (["teachers=[digits_vit,no_such_vit]"], "teachers[1]=no_such_vit: expected an option of the group teacher"),
        (["draws=-1"], "draws=-1: expected integer >= 0"),
    ],
)
def test_requests_for_phases_that_cannot_work(call: Callable[..., None], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        call("phases", *arguments)
    assert message in str(ended.value)


def test_a_finished_run_is_not_run_again(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", *SMALL, "name=one")
    folder = tmp_path / "runs" / "default" / "one"
    made = {"config.yaml", "status.json", "result.json", "model.safetensors", "model.json", "log.txt", "metrics"}
    assert made <= {p.name for p in folder.iterdir()}
    before = (folder / "result.json").read_bytes(), (folder / "model.safetensors").stat().st_mtime_ns
    call("train", *SMALL, "name=one")
    assert before == ((folder / "result.json").read_bytes(), (folder / "model.safetensors").stat().st_mtime_ns)
    with pytest.raises(SystemExit, match=r"trainer\.max_steps is 2 there, 3 here.*choose another name"):
        call("train", *SMALL, "name=one", "trainer.max_steps=3")


def test_max_epochs_counts_passes_over_the_training_images(call: Callable[..., None], tmp_path: Path) -> None:
    call(
        "train",
        *SMALL,
        "name=one",
        "task=linear_probe",
        "trainer.max_steps=null",
        "trainer.max_epochs=2",
        "data.batch_size=500",
    )
    assert json.loads((tmp_path / "runs/default/one/result.json").read_text())["steps"] == 6  # 2 x 1437 / 500


def test_a_damaged_checkpoint_is_named_and_can_be_deleted(call: Callable[..., None], tmp_path: Path) -> None:
    call("train", *SMALL, "name=one")
    folder = tmp_path / "runs" / "default" / "one"
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "result.json").unlink()
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(
        SystemExit, match=r"last\.ckpt: expected a file that is not damaged .*delete it to start this run"
    ):
        call("train", *SMALL, "name=one")
    checkpoint.unlink()
    call("train", *SMALL, "name=one")
    assert (folder / "model.safetensors").read_bytes() == weights


def test_arguments_that_the_locale_does_not_read_are_refused() -> None:
    check_encoding(["seed=1", "name=é☃"])
    with pytest.raises(ConfigError, match=r"^name=é: expected .* Fix: export LC_ALL"):
        check_encoding(["seed=1", "name=\udcc3\udca9"])
