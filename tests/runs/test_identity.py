"""What makes another run: every option, as it declares."""

from __future__ import annotations

import importlib
import json
import sys
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from raptor.cli import sweeps
from raptor.runs.identity import differences, digest, flatten, identity
from raptor.runs.migration import recorded, upgrade
from raptor.utils.options import Choice, Key, is_options, keys, parse
from raptor.utils.targets import target_name

ROOTS: dict[str, list[list[str]]] = {
    "train": [
        [],
        ["task=distill"],
        ["task=classifier", "teacher.weights=null"],
        ["task=linear_probe"],
        ["task=segmentation_probe"],
        ["task=depth_probe"],
        ["task=partitions"],
        ["method=fast"],
    ],
    "phases": [[]],
    "dynamics": [[]],
    "extract": [[]],
}
# values that stand beside others, which a change alone would contradict
APART = {
    "surrogate.k",
    "surrogate.phases",
    "task.nearest",
    "extract.part",
    "phases.eps",
    "precision",
    "trainer.precision",
}


def root(command: str, overrides: list[str]) -> Any:
    GlobalHydra.instance().clear()
    (job,) = sweeps.jobs(command, overrides)
    return importlib.import_module(f"raptor.{command}").main.parse(job.config)


def nodes(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Key]]:
    """Every option of a tree, with the node that has it."""
    for key in keys(type(node)):
        value, full = getattr(node, key.name), f"{prefix}.{key.name}" if prefix else key.name
        if is_options(type(value)):
            yield from nodes(value, full)
        elif not isinstance(value, Choice) and not (isinstance(value, dict) and value):
            yield full, node, key


def another(key: Key, value: Any) -> Any:
    """Another value of the option's type; MISSING where there is none to make up."""
    kinds = [part for part in _parts(key.type) if part is not type(None)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            others = [item for item in get_args(kind) if item != value]
            return others[0] if others else MISSING
        if kind is bool:
            return not value
        if kind in (int, float):
            bound = dict(key.limits).get("<=", dict(key.limits).get("<"))
            number = value if isinstance(value, int | float) else 1
            return kind(number / 2 + 0.25) if bound == 1 else kind(number + 1)
        if kind is str:
            return "another"
        if get_origin(kind) is list:
            inner = next(iter(_parts(get_args(kind)[0])))
            if get_origin(inner) is Literal:
                return [item for item in get_args(inner) if [item] != value][:1]
            return [inner(3), inner(4)] if inner in (int, float, str) else MISSING
    return MISSING


def _parts(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (typing.Union, type(int | str)) else (annotation,)


@pytest.mark.parametrize(
    ("command", "overrides"), [(command, overrides) for command, lists in ROOTS.items() for overrides in lists]
)
def test_an_option_makes_another_run_as_it_declares(command: str, overrides: list[str]) -> None:
    config = root(command, overrides)
    before, changed = flatten(config), 0
    for full, node, key in nodes(config):
        if full in APART:
            continue
        value = another(key, earlier := getattr(node, key.name))
        if value is MISSING or value == earlier:
            continue
        hidden = full.split(".")[0] in {k.name for k in keys(type(config)) if not k.identity}
        object.__setattr__(node, key.name, value)
        after = flatten(config)
        object.__setattr__(node, key.name, earlier)
        watches = full.startswith("callbacks.")
        expected = key.identity and not hidden and not watches
        assert (differences(after, {k: v for k, (v, _) in before.items()}) != {}) is expected, full
        assert (digest(after) != digest(before)) is expected, full
        changed += 1
    assert changed > 15


def test_names_and_ways_of_looking_are_no_part_of_a_run() -> None:
    one = flatten(root("train", []))
    watching = ["name=a", "study=b", "trainer.refresh_every=7", "logger=tensorboard", "callbacks.snapshots.steps=[3]"]
    assert flatten(root("train", watching)) == one
    monitor = "+callbacks.stats._target_=pytorch_lightning.callbacks.DeviceStatsMonitor"
    assert flatten(root("train", [monitor])) == one


@pytest.mark.parametrize("name", ["EMAWeightAveraging", "EarlyStopping", "StochasticWeightAveraging"])
def test_callbacks_that_may_change_the_weights_make_another_run(name: str) -> None:
    target = f"+callbacks.mine._target_=pytorch_lightning.callbacks.{name}"
    more = {
        "EarlyStopping": ["+callbacks.mine.monitor=val/top1"],
        "StochasticWeightAveraging": ["+callbacks.mine.swa_lrs=0.1"],
    }
    assert digest(flatten(root("train", [target, *more.get(name, [])]))) != digest(flatten(root("train", [])))


def test_a_key_that_a_record_lacks_had_its_default() -> None:
    flat = flatten(root("train", []))
    record = {key: value for key, (value, _) in flat.items()}
    del (
        record["task.rollout_growth"],
        record["trainer.detect_anomaly" if "trainer.detect_anomaly" in record else "seed"],
    )
    assert differences(flat, record) == {}
    assert list(differences(flatten(root("train", ["task.rollout_growth=0.5"])), record)) == ["task.rollout_growth"]


def test_the_code_of_a_user_is_part_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(factor: int) -> None:
        (tmp_path / "my_loss.py").write_text(
            textwrap.dedent(f"""
            class MyLoss:
                def __init__(self, weight: float = 1.0):
                    self.weight = weight

                def __call__(self, pred, target, layout):
                    return {factor} * (pred - target).square().mean()
            """)
        )

    monkeypatch.syspath_prepend(tmp_path)
    loss = "task.loss={_target_:my_loss.MyLoss,weight:2.0}"
    write(1)
    clean = ["~task.loss", "+" + loss]
    one = flatten(root("train", clean))
    assert one["task.loss"][0].startswith("my_loss:MyLoss@")
    assert one["task.loss.weight"] == (2.0, 1.0)
    write(2)
    monkeypatch.delitem(sys.modules, "my_loss")
    assert list(differences(flatten(root("train", clean)), {k: v for k, (v, _) in one.items()})) == ["task.loss"]


def test_what_a_users_code_imports_is_part_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of its package, of another one, of a namespace, and what is imported within a function."""
    files = {
        "shop/__init__.py": "",
        "shop/loss.py": "from .parts import weights\nimport tools.scale\nimport numpy\nimport raptor\nclass Loss:\n"
        "    def __call__(self, pred, target, layout):\n        from . import late\n        return late.SIGN",
        "shop/parts/__init__.py": "from .deep import *",
        "shop/parts/deep.py": "from .. import loss\nweights = 1",  # a circle
        "shop/late.py": "SIGN = 1",
        "shop/broken.py": "def",
        "tools/scale.py": "SCALE = 1",  # of a namespace: it has no __init__.py
        "shop/alone.py": "try:\n    from . import broken\nexcept SyntaxError:\n    pass\nclass Alone:\n    pass",
        "shop/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def named(loss: str = "shop.loss.Loss") -> Any:
        for name in [name for name in sys.modules if name.split(".")[0] in ("shop", "tools")]:
            monkeypatch.delitem(sys.modules, name)
        return flatten(root("train", ["~task.loss", "+task.loss={_target_:" + loss + "}"]))["task.loss"][0]

    before, alone = named(), named("shop.alone.Alone")
    assert before.startswith("shop:Loss@") and named() == before
    importlib.import_module("shop.late")
    assert target_name(importlib.import_module("shop.loss").Loss) == before  # whatever has been imported
    for name in files:
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text + "\n# edited")
        concerns = name not in ("shop/unused.py", "shop/alone.py", "shop/broken.py")
        assert (named() != before) is concerns, name
        (tmp_path / name).write_text(text)
    (tmp_path / "shop/broken.py").write_text("x = 1")
    assert named("shop.alone.Alone") != alone
    assert target_name(OmegaConf.create) == "omegaconf:OmegaConf.create"


def test_the_code_of_a_user_within_a_node_of_a_library_is_part_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    parts = "{_target_:mine_too.Turn},{_target_:torchvision.transforms.v2.RandomHorizontalFlip}"
    node = "data.augment={_target_:torchvision.transforms.v2.Compose,transforms:[" + parts + "]}"
    found = []
    for degrees in (1, 2):
        (tmp_path / "mine_too.py").write_text(f"class Turn:\n    degrees = {degrees}\n")
        monkeypatch.delitem(sys.modules, "mine_too", raising=False)
        found.append(flatten(root("train", [node]))["data.augment.transforms"][0])
    assert found[0] != found[1] and found[0][0]["_target_"].startswith("mine_too:Turn@")
    assert found[0][1] == {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip"}  # as it was written before


def test_former_names_of_targets_and_keys() -> None:
    old = {
        "surrogate": {"start": "mean"},
        "task": {"optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1}},
        "logger": {"csv": {"_target_": "nowhere.Logger"}},
    }
    new = upgrade(old)
    assert new["surrogate"] == {"init": "mean"}
    assert new["task"]["optimizer"] == {"_target_": "raptor.training.options.AdamWOptions", "lr": 0.1}
    assert "logger" not in new


def test_a_distance_that_was_null_is_the_cosine(tmp_path: Path) -> None:
    """Of configurations without an identity, and of identities of version 2; of a saved matrix it stays a path."""
    from raptor.phases import PhasesOptions
    from raptor.utils.files import write_json

    assert upgrade({"distance": None, "eps": None}) == {"distance": "cosine", "eps": None}
    today = flatten(root("phases", []))
    record: dict[str, Any] = {key: value for key, (value, _) in today.items()} | {"distance": None}
    for version, value, expected in ((2, None, "cosine"), (2, "D.npy", "D.npy"), (3, "cka", "cka")):
        values = record | {"distance": value}
        write_json(tmp_path / "identity.json", {"version": version, "command": "phases", "values": values})
        found = recorded(tmp_path, PhasesOptions)
        assert found is not None
        assert found["distance"] == expected
        assert list(differences(today, found)) == ([] if expected == "cosine" else ["distance"])


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_noise_that_was_added_once_a_rollout_is_another_run(tmp_path: Path, noise: float) -> None:
    """Of configurations without an identity, of identities of version 2, and in reports."""
    from raptor.runs.migration import read_options
    from raptor.train import TrainOptions
    from raptor.utils.files import write_json

    overrides = [f"task.input_noise={noise}"]
    today = flatten(root("train", overrides))
    values = {key: value for key, (value, _) in today.items()}
    GlobalHydra.instance().clear()
    (job,) = sweeps.jobs("train", overrides)
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(job.config, resolve=True))
    for version in (1, 2, 3):
        if version > 1:
            write_json(tmp_path / "identity.json", {"version": version, "command": "train", "values": values})
        expected = {"task.input_noise": ("0.1 once a rollout", 0.1)} if noise and version < 3 else {}
        for found in (recorded(tmp_path, TrainOptions), read_options(tmp_path)):
            assert found is not None
            assert differences(today, found) == expected, version


def test_targets_of_former_code_can_be_located() -> None:
    from raptor.runs.migration import TARGETS
    from raptor.utils.targets import locate

    for new in TARGETS.values():
        assert callable(locate(new, "task"))


def test_parse_is_the_inverse_of_what_is_written(tmp_path: Path) -> None:
    GlobalHydra.instance().clear()
    (job,) = sweeps.jobs("train", [])
    command = importlib.import_module("raptor.train").main
    written = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(job.config, resolve=True)))
    assert flatten(parse(command.options, written)) == flatten(command.parse(job.config))


def test_a_table_is_identified_by_its_values() -> None:
    record = json.loads(json.dumps(identity(root("report", ["experiment=table1"]))))
    rows = {key.split(".")[2] for key in record if key.startswith("table.rows.")}
    assert rows >= {"vits14", "vitb14"}
    assert record["table.reference"] == "vitb14"
