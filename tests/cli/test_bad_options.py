"""Values that no option takes: refused from the composed configuration alone, in one shape of message."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from raptor.cli import sweeps
from raptor.data.module import ImageData
from raptor.errors import ConfigError
from raptor.models.options import TeacherNode

SHAPE = r"(?s)^[\w.@#\[\]-]+=.*: expected .+\. Fix: .+\.$"
DISTILL, PROBE, DEPTH = "task=distill", "task=linear_probe", "task=depth_probe"
BAD = [
    ("train", ["seed=-1"], "seed", "integer >= 0"),
    ("train", ["seed=1.5"], "seed", "integer"),
    ("phases", ["seed=-1"], "seed", "integer >= 0"),
    ("extract", ["seed=-1"], "seed", "integer >= 0"),
    ("dynamics", ["seed=-1"], "seed", "integer >= 0"),
    ("train", ["seed=4294967296"], "seed", "< 4294967296"),
    ("train", ["study=a/b"], "study", "one folder"),
    ("train", ["name=../up"], "name", "one folder"),
    ("train", ["name=''"], "name", "one folder"),
    ("train", [f"name={'x' * 300}"], "name", "200 bytes"),
    ("train", ["+task.hats=1"], "task.hats", "keys of task"),
    ("train", ["task.teacher_forcing=abc"], "task.teacher_forcing", "number >= 0"),
    ("train", ["task.teacher_forcing=-1"], "task.teacher_forcing", "number >= 0"),
    ("train", ["task.teacher_forcing=nan"], "task.teacher_forcing", "number"),
    ("train", ["task.input_noise=abc"], "task.input_noise", "number >= 0"),
    ("train", ["task.input_noise=inf"], "task.input_noise", "number >= 0"),
    ("train", ["task.rollout_growth=2"], "task.rollout_growth", "from 0 to 1"),
    ("train", ["task.loss.cls=-0.1"], "task.loss.cls", "number >= 0"),
    ("train", ["task.loss.cls=a"], "task.loss.cls", "number"),
    ("train", ["task.loss.cls=0", "task.loss.registers=0", "task.loss.patches=0"], "task.loss.cls", "above 0"),
    ("train", ["+task.loss.hats=1"], "task.loss.hats", "keys of task.loss"),
    ("train", ["task.loss=3"], "task.loss", ""),
    ("train", ["task.loss._target_=nowhere.Loss"], "task.loss._target_", "module"),
    ("train", ["task.loss._target_=torch.nn.NoLoss"], "task.loss._target_", "name that exists"),
    ("train", ["task.optimizer.lr=fast"], "task.optimizer.lr", "number > 0"),
    ("train", ["task.optimizer.lr=0"], "task.optimizer.lr", "number > 0"),
    ("train", ["task.optimizer.weight_decay=-1"], "task.optimizer.weight_decay", ">= 0"),
    ("train", ["task.optimizer.betas=[0.9]"], "task.optimizer.betas", "length"),
    ("train", ["task.schedule.warmup=1.5"], "task.schedule.warmup", "from 0 to 1"),
    ("train", ["task.blocks=3"], "task.blocks", "text or list of text or null"),
    ("train", [DISTILL, "task.last_phase_loss.patches=x"], "task.last_phase_loss.patches", "number"),
    ("train", [DISTILL, "surrogate.phases=[[5,5]]"], "surrogate.phases", "start < end"),
    ("train", [DISTILL, "surrogate.phases=[]"], "surrogate.phases", "one or more phases"),
    ("train", [DISTILL, "surrogate.phases=all"], "surrogate.phases", "phases_file"),
    ("train", ["surrogate.k=0"], "surrogate.k", "integer >= 1 or null"),
    ("train", ["surrogate.k=two"], "surrogate.k", "integer"),
    ("train", ["surrogate.k=1.5"], "surrogate.k", "integer >= 1 or null"),
    ("train", ["surrogate.k=[2]"], "surrogate.k", "integer >= 1 or null"),
    ("train", ["surrogate.boundaries=[0]"], "surrogate.boundaries", "integers >= 1"),
    ("train", ["surrogate.boundaries=[5,5]"], "surrogate.boundaries", "strictly increasing"),
    ("train", ["surrogate.boundaries=[7,3]"], "surrogate.boundaries", "strictly increasing"),
    ("train", ["surrogate.boundaries=[1.5]"], "surrogate.boundaries", "list of integer"),
    ("train", ["surrogate.tokens=5"], "surrogate.tokens", "list of"),
    ("train", ["surrogate.tokens=[]"], "surrogate.tokens", "list of"),
    ("train", ["surrogate.tokens=[hats]"], "surrogate.tokens", "cls"),
    ("train", ["surrogate.images=true"], "surrogate.images", "integer >= 1"),
    ("train", ["surrogate.boundaries=7"], "surrogate.boundaries", "list of integer"),
    ("train", ["surrogate=k3", "surrogate.k=2"], "surrogate.k", "3"),
    ("train", ["surrogate.solver=magic"], "surrogate.solver", "exact"),
    ("train", ["surrogate.init=zero"], "surrogate.init", "random"),
    ("train", ["+surrogate.start=mean"], "surrogate.start", "surrogate.init"),
    ("train", ["surrogate.block.mlp=relu"], "surrogate.block.mlp", "swiglu or gelu"),
    ("train", ["surrogate.block.mlp_ratio=0"], "surrogate.block.mlp_ratio", "> 0"),
    ("train", ["surrogate.block.depth_scaling=1"], "surrogate.block.depth_scaling", "true or false"),
    ("train", ["trainer.max_steps=-2"], "trainer.max_steps", "integer >= -1"),
    ("train", ["trainer.max_steps=null"], "trainer.max_steps", "a limit"),
    ("train", ["trainer.precision=bf16-true"], "trainer.precision", "bf16-mixed"),
    ("train", ["trainer.precision=true"], "trainer.precision", "bf16-mixed"),
    ("train", ["trainer.precision=16-mixed"], "trainer.precision", "GPU"),
    ("train", ["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val", ">= 0"),
    ("train", ["trainer.gradient_clip_algorithm=value"], "trainer.gradient_clip_algorithm", "norm"),
    ("train", ["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches", ">= 1"),
    ("train", ["trainer.profiler=magic"], "trainer.profiler", "simple"),
    ("train", ["trainer.refresh_every=0"], "trainer.refresh_every", ">= 1"),
    ("train", ["callbacks.checkpoint.every_n_steps=0"], "callbacks.checkpoint.every_n_steps", ">= 1"),
    ("train", ["callbacks.snapshots.steps=[0]"], "callbacks.snapshots.steps", ">= 1"),
    ("train", ["+callbacks.mine._target_=nowhere.Callback"], "callbacks.mine._target_", "module"),
    ("train", ["+callbacks.mine=3"], "callbacks", "mapping"),
    ("train", [PROBE, "task.head_seeds=0"], "task.head_seeds", ">= 1"),
    ("train", [PROBE, "task.selection=[best]"], "task.selection", "official"),
    ("train", [PROBE, "task.learning_rates=[]"], "task.learning_rates", "numbers > 0"),
    ("train", [PROBE, "task.checks=[svm]"], "task.checks", "knn"),
    ("train", [PROBE, "task.start=middle"], "task.start", "random"),
    ("train", [PROBE, "task.selection=[last]", "task.learning_rates=[1,2]"], "task.selection", "official or held_out"),
    ("train", [DEPTH, "task.bins=1"], "task.bins", ">= 2"),
    ("train", [DEPTH, "task.nearest=20"], "task.nearest", "below task.farthest"),
    ("train", ["task=segmentation_probe", "task.stride=0"], "task.stride", "> 0"),
    ("train", ["task=classifier", "task.label_smoothing=2"], "task.label_smoothing", "from 0 to 1"),
    ("train", ["task=partitions", "task.kinds=[best]"], "task.kinds", "maxcut"),
    ("train", ["task=partitions", "task.swaps=-1"], "task.swaps", ">= 0"),
    ("train", ["data.batch_size=0"], "data.batch_size", "integer >= 1"),
    ("train", ["data.batch_size=-1"], "data.batch_size", "integer >= 1"),
    ("train", ["data.batch_size=1.5"], "data.batch_size", "integer >= 1"),
    ("train", ["data.batch_size=1e1"], "data.batch_size", "integer >= 1"),
    ("train", ["data.num_workers=-1"], "data.num_workers", "integer >= 0"),
    ("train", ["data.on_error=pass"], "data.on_error", "raise or skip"),
    ("train", ["data=image_folder", "data.crop=0"], "data.crop", "from 0.05 to 1"),
    ("train", ["data=tiny_imagenet", "data.crop=1.5"], "data.crop", "from 0.05 to 1"),
    ("extract", ["data=image_folder", "data.crop=1.5"], "data.crop", "from 0.05 to 1"),
    ("train", ["data=image_folder", "data.crop=0.001"], "data.crop", "from 0.05 to 1"),
    ("train", ["data=ade20k", "data.evaluation=sliding"], "data.eval_batch_size", "1 with"),
    ("train", ["data=nyuv2", "data.size=[480]"], "data.size", "length"),
    ("train", ["+data.hats=1"], "data.hats", "keys of data"),
    ("train", ["teacher.drop_path=1.0"], "teacher.drop_path", "< 1"),
    ("train", ["teacher.weights=3"], "teacher.weights", "text or null"),
    ("train", ["teacher.std=[0]"], "teacher.std", "numbers > 0"),
    ("train", ["teacher.std=[]"], "teacher.std", "numbers > 0"),
    ("train", ["teacher.mean=[0.5,0.5]"], "teacher.mean", "1 numbers"),
    ("train", ["teacher.mean=0.5"], "teacher.mean", "list of number"),
    *[
        ("train", [f"teacher.options.img_size={size}"], "teacher.options.img_size", "integer >= 1 or two of them")
        for size in ("0", "-16", "abc", "[8,8,8]", "8.0", "true", "[8,0]")
    ],
    ("train", ["teacher.options.patch_size=0"], "teacher.options.patch_size", "integer >= 1"),
    ("train", ["teacher.options.num_heads=0"], "teacher.options.num_heads", "integer >= 1"),
    ("train", ["teacher.options.embed_dim=[48]"], "teacher.options.embed_dim", "integer >= 1"),
    ("train", ["teacher.options.reg_tokens=-1"], "teacher.options.reg_tokens", "integer >= 0"),
    ("train", ["+teacher.hats=1"], "teacher.hats", "keys of teacher"),
    ("train", ["activations=cached", "activations.store=null"], "activations.store", "text"),
    ("phases", ["k=[0]"], "k", "integers >= 1"),
    ("phases", ["k=[]"], "k", "integers >= 1"),
    ("phases", ["k=two"], "k", "integer"),
    ("phases", ["eps=0.1"], "eps", "solver=greedy"),
    ("phases", ["images=0"], "images", ">= 1"),
    ("phases", ["tokens=[hats]"], "tokens", "cls"),
    ("dynamics", ["perturbation.sizes=[0]"], "perturbation.sizes", "> 0"),
    ("dynamics", ["operators.rank=0"], "operators.rank", ">= 1"),
    ("dynamics", ["jacobian.images=-1"], "jacobian.images", ">= 0"),
    ("dynamics", ["boundaries=[7,3]"], "boundaries", "strictly increasing"),
    ("dynamics", ["boundaries=[0]"], "boundaries", "integers >= 1"),
    ("dynamics", ["precision=16"], "precision", "32 or 64"),
    ("dynamics", ["split=test"], "split", "val or train"),
    ("dynamics", ["+jacobian.hats=1"], "jacobian.hats", "keys of jacobian"),
    ("extract", ["content=labels"], "content", "activations or pixels"),
    ("extract", ["workers=0"], "workers", ">= 1"),
    ("extract", ["part=1"], "part", "0..0"),
    ("extract", ["dtype=int8"], "dtype", "float32"),
    ("extract", ["splits=[test]"], "splits", "train"),
    ("report", ["analysis=magic"], "analysis", "small_scale"),
    ("report", ["stages=3"], "stages", "list of text"),
    ("reproduce", ["train=seed"], "train", "list of text"),
]


def parse(command: str, overrides: list[str]) -> Any:
    GlobalHydra.instance().clear()
    (job,) = sweeps.jobs(command, overrides)
    return importlib.import_module(f"raptor.{command}").main.parse(job.config)


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a teacher, or a data set, would be too late for these mistakes."""
    import raptor.models.pretrained as pretrained

    def build(*args: object, **kwargs: object) -> None:
        raise AssertionError("a teacher or a data set was built before the options were checked")

    monkeypatch.setattr(pretrained, "build_teacher", build)
    monkeypatch.setattr(TeacherNode, "build", build)
    monkeypatch.setattr(ImageData, "__init__", build)


def test_there_are_many() -> None:
    assert len(BAD) >= 60
    assert {command for command, *_ in BAD} == {"train", "phases", "dynamics", "extract", "report", "reproduce"}


@pytest.mark.parametrize(("command", "overrides", "key", "expected"), BAD)
def test_refused_before_anything_is_loaded(command: str, overrides: list[str], key: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(command, overrides)
    message = str(refused.value)
    assert re.match(SHAPE, message), message
    assert message.startswith(f"{key}="), message
    assert expected in message, message


@pytest.mark.parametrize("command", ["train", "phases", "dynamics", "extract", "report", "reproduce"])
def test_defaults_are_valid(command: str) -> None:
    assert parse(command, []).command == command
