"""A checkpoint is continued if it is whole and of the run, and refused otherwise."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from raptor.errors import ModelFileError
from raptor.training.checkpoints import SEALED, RunCheckpointIO, check_seal, seal

SMALL = [
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false",
    "callbacks.checkpoint.every_n_steps=1",
    "surrogate.boundaries=[5]",
    "data.batch_size=8",
    "name=run",
]
REFUSED = r"last\.ckpt: expected a file that is not damaged .*Fix: delete it to start this run afresh"


def load(path: Path) -> dict[str, Any]:
    return RunCheckpointIO(cast(Any, None)).load_checkpoint(path, weights_only=True)


def sealed(path: Path) -> bytes:
    torch.manual_seed(0)
    torch.save({"weights": torch.randn(2000), "step": 3, "raptor": {}}, path)
    seal(path)
    return path.read_bytes()


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_sealed_file_is_read_by_torch_as_ever(tmp_path: Path) -> None:
    content = sealed(tmp_path / "last.ckpt")
    assert check_seal(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] == 3
    assert content[-SEALED:].startswith(b"raptor:xxh3:")
    with pytest.raises(ValueError, match="it has one already"):
        seal(tmp_path / "last.ckpt")


def test_no_flipped_bit_passes(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    content, rng = sealed(path), random.Random(0)
    bits = [rng.randrange(8 * len(content)) for _ in range(300)]
    bits += range(8 * (len(content) - SEALED - 22), 8 * len(content), 3)  # zip's end, and the digest itself
    for bit in bits:
        path.write_bytes(flip(content, bit))
        with pytest.raises(ModelFileError, match=REFUSED):
            load(path)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    content = sealed(path)
    for size in (0, 1, 100, len(content) // 2, len(content) - SEALED - 1, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError, match=REFUSED):
            load(path)


@pytest.fixture
def unfinished(call: Callable[..., None], tmp_path: Path) -> Path:
    """A run that was killed after its last checkpoint."""
    call("train", *SMALL)
    folder = tmp_path / "runs" / "default" / "run"
    (folder / "result.json").unlink()
    return folder


def test_damage_at_fifty_places_is_never_continued(unfinished: Path, call: Callable[..., None]) -> None:
    path, rng = unfinished / "checkpoints" / "last.ckpt", random.Random(0)
    content = path.read_bytes()
    for _ in range(50):
        path.write_bytes(flip(content, rng.randrange(8 * len(content))))
        with pytest.raises(ModelFileError, match=REFUSED):
            load(path)
    with pytest.raises(SystemExit, match=REFUSED):
        call("train", *SMALL)
    # a seal that is gone is damage, too: the content says that there was one
    path.write_bytes(content[: -SEALED - 2] + b"\0\0")
    with pytest.raises(SystemExit, match=r"last\.ckpt: expected .* \(it has no digest\)"):
        call("train", *SMALL)
    path.write_bytes(content)
    call("train", *SMALL)
    assert json.loads((unfinished / "status.json").read_text())["attempt"] == 4


def test_the_checkpoint_of_another_run_is_refused(unfinished: Path, call: Callable[..., None], tmp_path: Path) -> None:
    call("train", *SMALL, "seed=1", f"paths.runs={tmp_path / 'other'}")
    theirs = tmp_path / "other" / "default" / "run" / "checkpoints" / "last.ckpt"
    shutil.copy(theirs, unfinished / "checkpoints" / "last.ckpt")
    with pytest.raises(
        SystemExit, match=r"expected a checkpoint of this run \(1 keys differ: seed is 1 there, 0 here\)"
    ):
        call("train", *SMALL)


def test_a_checkpoint_of_an_earlier_release_is_continued(unfinished: Path, call: Callable[..., None]) -> None:
    path = unfinished / "checkpoints" / "last.ckpt"
    before = (unfinished / "model.safetensors").read_bytes()
    content = torch.load(path, weights_only=True)
    del content["raptor"]
    torch.save(content, path)
    whole = path.read_bytes()
    weights = max(content["state_dict"].values(), key=torch.numel)
    path.write_bytes(flip(whole, 8 * whole.index(weights.numpy().tobytes()[:64])))
    with pytest.raises(SystemExit, match=REFUSED):
        call("train", *SMALL)
    path.write_bytes(whole)
    call("train", *SMALL)
    assert (unfinished / "model.safetensors").read_bytes() == before
