from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from raptor.data.digits import Digits
from raptor.data.sources import Online
from raptor.errors import ConfigError
from raptor.models.block import BlockConfig
from raptor.models.options import BlockOptions, SurrogateOptions
from raptor.models.pretrained import build_teacher
from raptor.models.teacher import Teacher
from raptor.models.tied import PartitionEnsemble
from raptor.studies.small_scale import build
from raptor.studies.small_scale.partitions import KINDS, partitions
from raptor.studies.small_scale.swap_metric import SwapScores, reordered
from raptor.studies.small_scale.swaps import Swap
from raptor.studies.small_scale.task import Partitions
from raptor.tasks.context import Context
from raptor.tasks.distillation.losses import TokenMSE
from tests.tasks.distillation.test_task import fit

DISTANCE = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
BLOCK: dict[str, Any] = {"layer_scale": 0.3}


@pytest.fixture
def make(teacher: Teacher, block_config: BlockConfig) -> Callable[..., Partitions]:
    def task(kinds: list[str], swaps: list[Swap] | None = None) -> Partitions:
        found = partitions(DISTANCE, [2], kinds, draws=1, seed=0)
        return Partitions(
            teacher=teacher,
            model=PartitionEnsemble(block_config, {p.name: p.labels for p in found}, seed=0),
            partitions=found,
            best={2: [0, 0, 1, 1]},
            distance=DISTANCE,
            swaps=swaps or [],
            loss=TokenMSE(),
            name="test",
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
            schedule=None,
            seed=0,
        )

    return task


def judge(task: Partitions, tmp_path: Path, batch: int = 100) -> dict[str, Any]:
    data = Digits(eval_batch_size=batch)
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    (metrics,) = trainer.validate(task, datamodule=data, verbose=False)
    return dict(metrics)


def test_pieces_trained_together_equal_pieces_trained_alone(make: Callable[..., Any], tmp_path: Path) -> None:
    together = make(list(KINDS))
    fit(together, 8, tmp_path)
    for kind, piece in zip(KINDS, together.model.students(), strict=True):
        alone = make([kind])
        before = alone.model.state_dict()["0.blocks.0.attn.qkv.weight"].clone()
        fit(alone, 8, tmp_path)
        (single,) = alone.model.students()
        assert single.name == piece.name
        assert not torch.equal(single.blocks[0].attn.qkv.weight, before)
        for name, weight in single.state_dict().items():
            assert torch.equal(weight, piece.state_dict()[name]), (kind, name)


def test_the_teachers_own_order_changes_nothing(teacher: Teacher) -> None:
    acts = Online().activations(teacher, torch.randn(3, 1, 8, 8), range(5))
    assert torch.equal(reordered(teacher, acts, [1, 2, 3, 4]), acts[4])
    x = acts[1]
    for layer in (4, 3, 2):
        x = teacher.blocks[layer - 1](x)
    assert torch.equal(reordered(teacher, acts, [1, 4, 3, 2]), x)
    assert not torch.allclose(x, acts[4])


def test_swaps_are_scored_over_all_batches(make: Callable[..., Any], teacher: Teacher, tmp_path: Path) -> None:
    nothing, something = Swap(2, "intra", (), ()), Swap(2, "inter", (1, 3), (4, 2))
    torch.manual_seed(0)
    for parameter in teacher.parameters():  # so that it does not say the same of every image
        parameter.data.normal_()
    scores = SwapScores([nothing, something])
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    images, labels = zip(*[data.val_images[i] for i in range(50)], strict=True)
    images, labels = data.normalize(torch.stack(images)), torch.stack(list(labels))
    with torch.no_grad():
        acts = Online().activations(teacher, images, range(5))
        logits = teacher.head(acts[4])
        for part in (slice(0, 20), slice(20, 50)):
            scores.update(teacher, {i: x[part] for i, x in acts.items()}, logits[part], labels[part])
        x = teacher.blocks[3](teacher.blocks[1](teacher.blocks[1](teacher.blocks[3](acts[0]))))
        guess = teacher.head(x).argmax(1)
    own = (logits.argmax(1) == labels).double().mean()
    kept, agreement = (guess == labels).double().mean(), (guess == logits.argmax(1)).double().mean()
    assert scores.compute().tolist() == [[own, 1.0], [kept, agreement]]
    assert 0 < agreement < 1


def test_a_validation_leaves_measures_and_swaps(make: Callable[..., Any], tmp_path: Path) -> None:
    task = make(list(KINDS), swaps=[Swap(2, "inter", (1,), (3,))])
    metrics = judge(task, tmp_path)
    details = task.details()
    (swap,) = details["swaps"]
    assert (swap["replaced"], swap["by"], swap["distance"], swap["gap"]) == ([1], [3], 2.0, 2.0)
    assert 0 <= swap["top1"] <= 1 and 0 <= swap["agreement"] <= 1
    assert judge(make(["maxcut"]), tmp_path, batch=360)["val/teacher_top1"] == metrics["val/teacher_top1"]
    assert (
        set(details["partitions"]) == set(details["layers"]) == {"k2-maxcut", "k2-equal", "k2-random0", "k2-shuffled0"}
    )
    best = details["teacher_measures"]["maxcut"]["2"]
    assert best["labels"] == details["partitions"]["k2-maxcut"]["labels"] == [0, 0, 1, 1]
    assert best["measures"]["cut"] == 2 + 3 + 1 + 2
    assert details["teacher_measures"]["adjacent"] == 1.0
    assert {"val/k2-maxcut/top1", "val/k2-random0/r2_cls", "val/k2-shuffled0/cosine_patches"} <= set(metrics)
    assert task.describe()["trained"] is False


COMMON: dict[str, Any] = {"name": "p", "optimizer": torch.optim.SGD, "schedule": None, "loss": TokenMSE()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 2}, r"surrogate\.k=2: expected null: task=partitions cuts by itself.*set surrogate\.k to null"),
        ({"boundaries": [2]}, r"surrogate\.boundaries=\[2\]: expected null"),
        ({"phases_file": "phases.json"}, r"surrogate\.phases_file=phases\.json: expected null"),
        ({"init": "mean"}, r"surrogate\.init=mean: expected random"),
        ({"ks": [9]}, r"task\.ks=9"),
    ],
)
def test_mistakes(teacher: Teacher, options: dict[str, Any], said: str) -> None:
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    ks = options.pop("ks", [2])
    surrogate = SurrogateOptions(images=50, block=BlockOptions(**BLOCK), **options)
    with pytest.raises(ConfigError, match=said):
        build.partitions(Context(teacher, data, Online(), surrogate, 0), COMMON, ks, KINDS, 1, 0)


def test_draws_differ_between_teachers_of_one_seed(teacher: Teacher) -> None:
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    vit = {"img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "num_heads": 2}

    def labels(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        one = build_teacher("vit_tiny_patch16_224", {**vit, "depth": 12}, mean=[0.3], std=[0.4])
        surrogate = SurrogateOptions(images=50, block=BlockOptions(**BLOCK))
        task = build.partitions(Context(one, data, Online(), surrogate, 0), COMMON, [3], KINDS, 4, 0)
        return [p.labels for p in task.partitions if p.kind == "shuffled"]

    assert labels(0) == labels(0)
    assert labels(0) != labels(1)
