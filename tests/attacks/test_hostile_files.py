"""Files that were damaged or made up: refused in one line before anything is built, and made again by the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import raptor
from raptor.errors import ConfigError, ModelFileError
from raptor.models.io import save
from raptor.models.teacher import Teacher
from raptor.partition.files import read_phases

DEEP = "[" * 100_000
GIANT = "1" + "0" * 5000


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ({"2": [3, 7]}, r"boundaries\.2=\[3,7\]: expected boundaries that make 2 phases \(they make 3\)"),
        ({"3": [7]}, r"boundaries\.3=\[7\]: expected boundaries that make 3 phases \(they make 2\)"),
        ({"2": [5], "3": [7, 3]}, r"boundaries\.3"),
        ({"2": [12]}, r"boundaries\.2"),
        ({"2": [0]}, r"boundaries\.2"),
        ({"2": 7}, r"boundaries\.2=7: expected a list"),
        ({"2": ["7"]}, r"boundaries\.2"),
        ({"2": [True]}, r"boundaries\.2"),
        ([[7]], "expected a phases.json"),
    ],
)
def test_boundaries_make_the_k_that_they_stand_under(tmp_path: Path, boundaries: Any, message: str) -> None:
    path = tmp_path / "phases.json"
    path.write_text(json.dumps({"num_layers": 12, "solver": "exact", "boundaries": boundaries}))
    with pytest.raises(ConfigError, match=message):
        read_phases(path, 12)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", DEEP, GIANT, '{"num_layers": ' + GIANT + "}", "\0", "\ud800"])
def test_phases_of_any_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "phases.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"phases\.json"):
        read_phases(tmp_path / "phases.json", 12)


@pytest.mark.parametrize(
    "changed",
    [
        DEEP,
        GIANT,
        "\0",
        {"kind": []},
        {"kind": {}},
        {"kind": None},
        {"version": []},
        {"sha256": None},
        {"dtype": []},
        {"config": None},
        {"config": []},
        {"config": {"spec": 3}},
    ],
    ids=lambda changed: str(changed)[:30],
)
def test_descriptions_of_any_content(tmp_path: Path, teacher: Teacher, changed: Any) -> None:
    folder = save(teacher, tmp_path / "model")
    path = folder / "model.json"
    text = changed if isinstance(changed, str) else json.dumps({**json.loads(path.read_text()), **changed})
    path.write_text(text)
    with pytest.raises(ModelFileError, match=r"model"):
        raptor.load(folder)


def test_weights_are_checked_before_a_model_is_built(tmp_path: Path, teacher: Teacher) -> None:
    folder = save(teacher, tmp_path / "model")
    description = json.loads((folder / "model.json").read_text())
    description |= {"sha256": "0" * 64, "config": {"what": "no class can be built from"}}
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match="damaged or another"):
        raptor.load(folder)


def test_a_damaged_model_is_made_again_by_its_run(
    call: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["trainer.max_steps=2", "trainer.enable_progress_bar=false", "trainer.limit_val_batches=1", "name=run"]
    call("train", *arguments)
    folder = tmp_path / "runs" / "default" / "run"
    weights = folder / "model.safetensors"
    whole, result = weights.read_bytes(), json.loads((folder / "result.json").read_text())
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    call("train", *arguments)
    assert "model.safetensors is damaged and is made again" in caplog.text
    assert weights.read_bytes() == whole
    again = json.loads((folder / "result.json").read_text())
    assert (again["weights_sha256"], again["history"]) == (result["weights_sha256"], result["history"])
    assert again["attempts"] == 2
    caplog.clear()
    weights.unlink()  # somebody may have removed it to save space: that is no damage
    call("train", *arguments)
    assert not weights.exists()
