"""A release of a run, and the surrogate of the digits that ships: what they say of themselves is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import raptor
from raptor.data.digits import Digits
from raptor.errors import ConfigError
from raptor.models.io import describe
from raptor.models.surrogate import Surrogate
from raptor.runs.release import release
from raptor.tasks.distillation.fidelity import Fidelity
from raptor.tasks.probes.knn_ridge import knn_top1, ridge_top1

SHIPPED = "package:digits_k2"


@pytest.fixture(scope="module")
def digits() -> Digits:
    teacher = raptor.load("package:digits_vit")
    data = Digits(num_workers=0, eval_batch_size=360)
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    return data


def test_the_surrogate_that_ships_is_as_its_card_says(digits: Digits) -> None:
    teacher, surrogate = raptor.load("package:digits_vit"), raptor.load(SHIPPED)
    assert isinstance(surrogate, Surrogate) and surrogate.k == 2
    recorded = describe(SHIPPED)["about"]["metrics"]
    (images, labels), *more = digits.eval_loader("val")
    assert not more
    with torch.no_grad():
        x = digits.normalize(images)
        layers, theirs = surrogate.rollout(surrogate.embed(x)), teacher.rollout(teacher.embed(x))
        top1 = float((surrogate.classify(x).argmax(1) == labels).float().mean())
    scores = Fidelity(teacher.layout, 12, teacher.width)
    scores.update(list(layers.unbind(1)), list(theirs.unbind(1)))
    curves = scores.compute().predictions.curves
    assert top1 == pytest.approx(recorded["val/top1"], abs=0.003) and top1 > 0.95
    for kind in ("cls", "registers", "patches"):
        values = curves["r2_centered"][kind]
        assert sum(values) / 12 == pytest.approx(recorded[f"val/r2_centered_{kind}"], abs=0.002)


def test_its_probe_is_as_the_card_says(digits: Digits) -> None:
    surrogate, recorded = raptor.load(SHIPPED), describe(SHIPPED)["about"]["metrics"]
    pairs = []
    with torch.no_grad():
        for images in (digits.train_images, digits.val_images):
            batches = list(digits.loader(images, batch_size=512))
            features = [surrogate.layout.features(surrogate(digits.normalize(x))) for x, _ in batches]
            pairs.append((torch.cat(features), torch.cat([y for _, y in batches])))
    train, val = pairs
    assert ridge_top1(train, val) == pytest.approx(recorded["digits/linear_probe/ridge_top1"], abs=0.006)
    assert knn_top1(train, val) == pytest.approx(recorded["digits/linear_probe/knn_top1"], abs=0.006)


def test_a_release_holds_the_model_and_a_card_with_its_probes(surrogate_run: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.mkdir()
    result = {
        "task": "linear_probe",
        "model": {"backbone": {"folder": str(surrogate_run)}},
        "data": {"name": "digits"},
        "metrics": {"val/top1": 0.5},
    }
    (probe / "result.json").write_text(json.dumps(result))
    target = tmp_path / "release"
    release(surrogate_run, target, [probe])
    release(surrogate_run, target, [probe])  # replaces the former one
    assert {path.name for path in target.iterdir()} == {"model.safetensors", "model.json", "README.md", "config.json"}
    made, model = raptor.load(target), raptor.load(surrogate_run)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), model.parameters(), strict=True))
    card = (target / "README.md").read_text()
    assert "digits/linear_probe/top1 | 0.5" in card and "val/r2_cls | 0.25" in card

    (target / "mine.txt").write_text("kept")
    with pytest.raises(ConfigError, match=r"expected an empty folder \(it holds mine\.txt\)"):
        release(surrogate_run, target)
    result["model"] = {"backbone": {"folder": None}}
    (probe / "result.json").write_text(json.dumps(result))
    with pytest.raises(ConfigError, match="it is of a teacher"):
        release(surrogate_run, tmp_path / "other", [probe])
    (surrogate_run / "result.json").unlink()
    with pytest.raises(ConfigError, match="expected a finished run"):
        release(surrogate_run, tmp_path / "other")


@pytest.fixture
def surrogate_run(tmp_path: Path) -> Path:
    """A folder as a finished run leaves it."""
    from raptor.models.io import save

    folder = tmp_path / "surrogate"
    save(raptor.load("package:digits_vit"), folder, about={"task": "finetune", "metrics": {"val/r2_cls": 0.25}})
    (folder / "result.json").write_text(json.dumps({"task": "finetune", "metrics": {"val/r2_cls": 0.25}}))
    return folder
