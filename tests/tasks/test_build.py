from pathlib import Path

import pytest
import torch
from raptor.tasks.build import finetune, linear_probe

from raptor.data.digits import Digits
from raptor.data.sources import Online
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.io import save
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase
from raptor.tasks.distillation.losses import TokenMSE
from raptor.tasks.distillation.phases import SurrogateOptions
from tests.conftest import tiny_spec

OPTIONS = {"name": "t", "optimizer": torch.optim.SGD, "schedule": None}


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
    surrogate = SurrogateOptions(boundaries=[2])
    common = {
        "teacher": teacher,
        "data": data,
        "source": Online(),
        "surrogate": surrogate,
        "seed": 0,
        "loss": TokenMSE(),
        **OPTIONS,
    }
    task = finetune(blocks=folders, **common)
    for i, phase in enumerate([Phase(0, 2), Phase(2, 4)]):
        wanted = PhaseBlocks(config, [phase], seed=10 + i).of(phase).state_dict()
        found = task.model.blocks.of(phase).state_dict()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    scratch = finetune(**common).model.blocks.of(Phase(0, 2)).state_dict()
    key = "block.mlp.fc1.weight"
    assert not torch.equal(scratch[key], task.model.blocks.of(Phase(0, 2)).state_dict()[key])

    with pytest.raises(ConfigError, match=r"no block for phase 2-4, only for 0-2.*surrogate\.phases=\[\[2,4\]\]"):
        finetune(blocks=folders[0], **common)
    gelu = {**common, "surrogate": SurrogateOptions(boundaries=[2], block={"mlp": "gelu"})}
    with pytest.raises(ConfigError, match="was trained with block options"):
        finetune(blocks=folders, **gelu)
    save(teacher, tmp_path / "teacher")
    with pytest.raises(ConfigError, match="holds a Teacher, a PhaseBlocks is needed"):
        finetune(blocks=str(tmp_path / "teacher"), **common)


def test_a_probe_names_what_it_probes_and_checks_its_input(teacher: Teacher, data: Digits, tmp_path: Path) -> None:
    common = {"data": data, "source": Online(), "surrogate": SurrogateOptions(), "seed": 0, **OPTIONS}
    assert linear_probe(teacher=teacher, **common).describe()["backbone"]["label"] == "untrained"
    teacher.trained = True
    assert linear_probe(teacher=teacher, **common).describe()["backbone"]["label"] == "teacher"
    save(Teacher(tiny_spec(img_size=12)), tmp_path / "larger")
    with pytest.raises(ConfigError, match=r"\(1, 12, 12\).*choose its own teacher"):
        linear_probe(teacher=teacher, backbone=str(tmp_path / "larger"), **common)


def test_a_surrogate_is_probed_at_the_size_of_its_teacher(teacher: Teacher, tmp_path: Path) -> None:
    blocks = PhaseBlocks(BlockConfig(width=16, num_heads=2), [Phase(0, 2), Phase(2, 4)], seed=0)
    folder = save(Surrogate.of_teacher(teacher, blocks), tmp_path / "surrogate")
    wide = Teacher(tiny_spec(img_size=[8, 12]))
    state = teacher.state_dict()
    state["shell.vit.pos_embed"] = torch.randn_like(wide.state_dict()["shell.vit.pos_embed"])
    wide.load_state_dict(state)
    data = Digits()
    data.prepare((1, 8, 12), (0.3,), (0.4,))
    common = {"data": data, "source": Online(), "surrogate": SurrogateOptions(), "seed": 0, **OPTIONS}
    probe = linear_probe(teacher=wide, backbone=str(folder), **common)
    images = torch.randn(2, 1, 8, 12)
    expected = Surrogate.of_teacher(wide, blocks).eval()(images)
    assert torch.equal(probe.backbone(images), expected)
    assert probe.backbone.layout.patches == 6
    wide.shell.vit.norm.weight.data += 1
    with pytest.raises(ConfigError, match="another embedding, norm or head than the teacher"):
        linear_probe(teacher=wide, backbone=str(folder), **common)


def test_frozen_means_frozen(teacher: Teacher, data: Digits) -> None:
    probe = linear_probe(teacher=teacher, data=data, source=Online(), surrogate=SurrogateOptions(), seed=0, **OPTIONS)
    probe.train()
    assert not any(module.training for module in probe.backbone.modules())
    images, labels = data.train_images[:4]  # type: ignore[index]
    (head, *_) = probe.heads
    raw = probe.logits([head], probe.extract(data.normalize(images)))
    probe.losses(raw, labels).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in probe.backbone.parameters())
    assert head.linear.weight.grad.abs().sum() > 0
