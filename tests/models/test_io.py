import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import raptor
from raptor.errors import ModelFileError
from raptor.models.block import BlockConfig
from raptor.models.heads import LinearProbe
from raptor.models.io import save
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase, phases_of
from raptor.utils.files import sha256


@pytest.fixture
def surrogate(teacher: Teacher, block_config: BlockConfig) -> Surrogate:
    return Surrogate.of_teacher(teacher, PhaseBlocks(block_config, phases_of([1, 3], 4), seed=0))


def test_surrogate_comes_back_bit_for_bit(tmp_path: Path, surrogate: Surrogate) -> None:
    loaded = raptor.load(save(surrogate, tmp_path / "model", about={"seed": 0}))
    images = torch.randn(2, 1, 8, 8)
    assert isinstance(loaded, Surrogate)
    assert not loaded.training
    assert loaded.boundaries == [1, 3]
    assert loaded.spec == surrogate.spec
    assert torch.equal(loaded.rollout(loaded.embed(images)), surrogate.rollout(surrogate.embed(images)))
    assert torch.equal(loaded.classify(images), surrogate.eval().classify(images))


def test_every_kind_comes_back(tmp_path: Path, teacher: Teacher, block_config: BlockConfig) -> None:
    models: list[Any] = [teacher, PhaseBlocks(block_config, [Phase(1, 3), Phase(0, 4)], seed=0), LinearProbe(8, 3)]
    for i, model in enumerate(models):
        loaded = raptor.load(save(model, tmp_path / str(i)))
        assert type(loaded) is type(model)
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
        )


def test_damaged_files_are_told_apart(tmp_path: Path, surrogate: Surrogate) -> None:
    folder = save(surrogate, tmp_path / "model")
    weights, description = folder / "model.safetensors", folder / "model.json"
    whole, text = weights.read_bytes(), description.read_text()

    def refused(match: str) -> None:
        with pytest.raises(ModelFileError, match=match):
            raptor.load(folder)

    weights.write_bytes(whole[: len(whole) // 2])
    refused("damaged or another")
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    weights.write_bytes(bytes(flipped))
    refused("damaged or another")
    weights.unlink()
    refused("expected model.safetensors there")
    weights.write_bytes(whole)

    description.write_text(text[:50])
    refused("model.json: expected JSON")
    description.write_text(json.dumps({"architecture": "somebody else's"}))
    refused("was not written by raptor")
    description.write_text(json.dumps({**json.loads(text), "version": 99}))
    refused("update raptor")
    broken = json.loads(text)
    del broken["config"]["boundaries"]
    description.write_text(json.dumps(broken))
    refused("expected what describes a model.*boundaries")
    description.unlink()
    refused("it has no model.json")
    with pytest.raises(ModelFileError, match="does not exist"):
        raptor.load(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="is a file"):
        raptor.load(weights)


def test_truncated_file_with_a_matching_digest_is_refused(tmp_path: Path, surrogate: Surrogate) -> None:
    folder = save(surrogate, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    description = json.loads((folder / "model.json").read_text())
    description["sha256"] = sha256(weights)
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match="expected a whole safetensors file"):
        raptor.load(folder)


class Trap:
    """A pickle that would make a folder when loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_place_of_the_weights_never_runs(tmp_path: Path, surrogate: Surrogate) -> None:
    folder = save(surrogate, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    description = json.loads((folder / "model.json").read_text())
    description["sha256"] = sha256(folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelFileError):
        raptor.load(folder)
    assert not (tmp_path / "sprung").exists()
