from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from raptor.data.digits import Digits
from raptor.data.image_folder import PictureFolders
from raptor.data.sources import Online
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.io import save
from raptor.models.options import BlockOptions, SurrogateOptions
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase
from raptor.tasks.context import Context
from raptor.tasks.distillation.build import finetune
from raptor.tasks.distillation.losses import TokenMSE
from raptor.tasks.options import ClassifierOptions
from raptor.tasks.probes.base import Probe
from raptor.tasks.probes.build import build_probe
from raptor.tasks.probes.linear import LinearProbing
from raptor.training.options import AdamWOptions
from tests.conftest import tiny_spec

OPTIONS: dict[str, Any] = {"name": "t", "optimizer": torch.optim.SGD, "schedule": None}


def context(teacher: Teacher, data: Digits, surrogate: SurrogateOptions | None = None) -> Context:
    return Context(teacher, data, Online(), surrogate or SurrogateOptions(), seed=0)


def linear_probe(teacher: Teacher, data: Digits, backbone: str | None = None) -> Probe:
    return build_probe(LinearProbing, context(teacher, data), backbone, None, OPTIONS)


@pytest.fixture
def data() -> Digits:
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    return data


def test_stage_2_starts_from_the_weights_of_stage_1(teacher: Teacher, data: Digits, tmp_path: Path) -> None:
    config = BlockConfig(width=16, num_heads=2)
    folders = []
    for i, phase in enumerate([Phase(0, 2), Phase(2, 4)]):
        blocks = PhaseBlocks(config, [phase], seed=10 + i)
        folders.append(str(save(blocks, tmp_path / str(i))))
    made_of = context(teacher, data, SurrogateOptions(boundaries=[2]))
    arguments = {"loss": TokenMSE(), **OPTIONS}
    task = finetune(made_of, arguments, folders)
    for i, phase in enumerate([Phase(0, 2), Phase(2, 4)]):
        wanted = PhaseBlocks(config, [phase], seed=10 + i).of(phase).state_dict()
        found = task.model.blocks.of(phase).state_dict()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    scratch = finetune(made_of, arguments, []).model.blocks.of(Phase(0, 2)).state_dict()
    key = "block.mlp.fc1.weight"
    assert not torch.equal(scratch[key], task.model.blocks.of(Phase(0, 2)).state_dict()[key])

    with pytest.raises(ConfigError, match=r"a block for phase 2-4 \(they have 0-2\).*surrogate\.phases=\[\[2,4\]\]"):
        finetune(made_of, arguments, folders[:1])
    gelu = context(teacher, data, SurrogateOptions(boundaries=[2], block=BlockOptions(mlp="gelu")))
    with pytest.raises(ConfigError, match=r"task\.blocks=.*set surrogate\.block to what they were trained with"):
        finetune(gelu, arguments, folders)
    save(teacher, tmp_path / "teacher")
    with pytest.raises(ConfigError, match=r"a folder with a PhaseBlocks \(it holds a Teacher"):
        finetune(made_of, arguments, [str(tmp_path / "teacher")])


def test_a_probe_names_what_it_probes_and_checks_its_input(teacher: Teacher, data: Digits, tmp_path: Path) -> None:
    assert linear_probe(teacher, data).describe()["backbone"]["label"] == "untrained"
    teacher.trained = True
    assert linear_probe(teacher, data).describe()["backbone"]["label"] == "teacher"
    save(Teacher(tiny_spec(img_size=12)), tmp_path / "larger")
    with pytest.raises(ConfigError, match=r"\(1, 12, 12\).*choose its own teacher"):
        linear_probe(teacher, data, str(tmp_path / "larger"))


def test_a_surrogate_is_probed_at_the_size_of_its_teacher(teacher: Teacher, tmp_path: Path) -> None:
    blocks = PhaseBlocks(BlockConfig(width=16, num_heads=2), [Phase(0, 2), Phase(2, 4)], seed=0)
    folder = save(Surrogate.of_teacher(teacher, blocks), tmp_path / "surrogate")
    wide = Teacher(tiny_spec(img_size=[8, 12]))
    state = teacher.state_dict()
    state["shell.vit.pos_embed"] = torch.randn_like(wide.state_dict()["shell.vit.pos_embed"])
    wide.load_state_dict(state)
    data = Digits()
    data.prepare((1, 8, 12), (0.3,), (0.4,))
    probe = linear_probe(wide, data, str(folder))
    images = torch.randn(2, 1, 8, 12)
    expected = Surrogate.of_teacher(wide, blocks).eval()(images)
    assert torch.equal(probe.backbone(images), expected)
    assert probe.backbone.layout.patches == 6
    wide.shell.vit.norm.weight.data += 1
    with pytest.raises(ConfigError, match="expected the embedding, norm and head of the surrogate"):
        linear_probe(wide, data, str(folder))


def test_one_class_is_distilled_and_not_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / split / "cat" / "0.png")
    data, teacher = PictureFolders(tmp_path), Teacher(tiny_spec(num_classes=1))
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    made_of = Context(teacher, data, Online(), SurrogateOptions(boundaries=[2]), seed=0)
    refused = r"^data=image_folder: expected data of two classes or more for task=\w+, it has 1\. Fix: add a class"
    with pytest.raises(ConfigError, match=refused):
        build_probe(LinearProbing, made_of, None, None, OPTIONS)
    with pytest.raises(ConfigError, match=refused):
        ClassifierOptions(optimizer=AdamWOptions()).build(made_of)
    finetune(made_of, {"loss": TokenMSE(), **OPTIONS}, [])
    assert "has one class: no top-1" in caplog.text


def test_frozen_means_frozen(teacher: Teacher, data: Digits) -> None:
    probe = linear_probe(teacher, data)
    probe.train()
    assert not any(module.training for module in probe.backbone.modules())
    images, labels = data.train_images[:4]  # type: ignore[index]
    (head, *_) = probe.heads
    raw = probe.logits([head], probe.extract(data.normalize(images)))
    probe.losses(raw, labels).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in probe.backbone.parameters())
    assert head.linear.weight.grad.abs().sum() > 0
