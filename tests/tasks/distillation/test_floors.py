"""Floors: what trivial predictions score, fitted on training images and scored on others, once for a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from raptor.data.digits import Digits
from raptor.models.tokens import TokenLayout
from raptor.tasks.distillation.fidelity import Fidelity
from raptor.tasks.distillation.floors import AffineFit, AffineMaps, FloorScores, FloorSettings, above_floor, cache_file

LAYOUT = TokenLayout(1, 2, 4)
N, D = 7, 5


def linear_network(images: int, seed: int) -> list[Tensor]:
    """Layers 0..3, each an affine map of layer 0, one for each token type; class token and registers are constant."""
    fixed, own = torch.Generator().manual_seed(7), torch.Generator().manual_seed(seed)
    first = torch.randn(1, N, D, generator=fixed).repeat(images, 1, 1)
    first[:, 3:] += torch.randn(images, 4, D, generator=own) * torch.tensor([3.0, 1.0, 1.0, 0.3, 1.0])
    layers = [first]
    for _ in range(3):
        matrix, bias = torch.randn(D, D, generator=fixed), torch.randn(N, D, generator=fixed)
        layers.append(first @ matrix + bias)
    return layers


def fitted(layers: list[Tensor], batch: int = 10) -> AffineMaps:
    fit = AffineFit(LAYOUT)
    for i in range(0, len(layers[0]), batch):
        fit.update([layer[i : i + batch] for layer in layers])
    return fit.solve()


def test_a_linear_network_is_matched_exactly_on_other_images() -> None:
    maps = fitted(linear_network(200, seed=0))
    assert maps.kinds == ("patches",)  # of the others, layer 0 has nothing to say
    held_out = linear_network(50, seed=1)
    fidelity = Fidelity(LAYOUT, 3, D)
    fidelity.update(maps(held_out[0]), held_out[1:])
    curves = fidelity.compute().predictions.curves
    assert curves["r2_centered"]["patches"] == pytest.approx([1.0] * 3, abs=1e-5)
    assert max(curves["eps"]["cls"]) < 1e-5


def test_the_affine_map_is_the_least_squares_solution() -> None:
    layers = [x.double() for x in linear_network(60, seed=0)]
    layers[2] = layers[2] + torch.randn(layers[2].shape, generator=torch.Generator().manual_seed(3)).double()
    maps = fitted(layers)
    x, y = (z[:, 3:] - z[:, 3:].mean(0) for z in (layers[0], layers[2]))
    expected = torch.linalg.lstsq(x.flatten(0, 1), y.flatten(0, 1)).solution
    assert torch.allclose(maps.weights_patches[1].double(), expected, atol=1e-4)  # type: ignore[index]
    assert torch.allclose(maps.mean_LND[2].double(), layers[2].mean(0), atol=1e-6)


def test_floors_are_scored_as_predictions_of_the_layers_of_each_student() -> None:
    training, held_out = linear_network(80, seed=0), linear_network(30, seed=1)
    acts = dict(enumerate(held_out))
    starts: dict[str, list[tuple[int, int]] | None] = {
        "0-3": [(0, 1), (0, 2), (2, 3)],  # phases 1..2 and 3
        "1-3": [(1, 2), (1, 3)],
        "tied": None,
    }
    floors = FloorScores(LAYOUT, 3, D, fitted(training), starts)
    for part in (slice(0, 11), slice(11, None)):
        floors.update({layer: x[part] for layer, x in acts.items()})
    found, official = floors.compute()
    assert official["affine"]["r2_official_end"] == pytest.approx(1.0, abs=1e-5)
    assert official["mean"]["r2_official_pooled"] < 0.9

    def r2(preds: list[Tensor], layers: list[int]) -> list[float]:
        fidelity = Fidelity(LAYOUT, len(layers), D)
        fidelity.update(preds, [acts[layer] for layer in layers])
        return fidelity.compute().predictions.curves["r2_centered"]["patches"]

    held = {"0-3": ([0, 0, 2], [1, 2, 3]), "1-3": ([1, 1], [2, 3])}
    for name, (sources, layers) in held.items():
        curves = {floor: by["r2_centered"]["patches"] for floor, by in found[name].items()}
        assert curves["phase_start"] == pytest.approx(r2([acts[s] for s in sources], layers))
        assert curves["layer_0"] == pytest.approx(r2([acts[0]] * len(layers), layers))
        assert curves["mean"] == pytest.approx([0.0] * len(layers), abs=1e-9)
        assert curves["affine"] == pytest.approx([1.0] * len(layers), abs=1e-5)
    assert set(found["tied"]) == {"mean", "layer_0", "affine"}
    assert len(found["tied"]["affine"]["eps"]["registers"]) == 3


def test_above_floor_is_the_lead_over_the_best_floor() -> None:
    def curves(cls: list[float], patches: list[float]) -> dict[str, dict[str, list[float]]]:
        return {"r2_centered": {"cls": cls, "patches": patches}}

    floors = {"mean": curves([0.0, 0.0], [0.0, 0.0]), "affine": curves([-0.2, -0.4], [0.5, 0.7])}
    found = above_floor(curves([0.9, 0.7], [0.4, 0.5]), floors)
    assert found == {"cls": pytest.approx(0.8), "patches": pytest.approx(-0.15)}


def test_maps_are_kept_by_teacher_images_and_precision(tmp_path: Path) -> None:
    data = Digits()
    data.prepare((1, 8, 8), (0.3,), (0.4,))
    settings = FloorSettings(100, tmp_path)
    file = cache_file(settings, data, "teacher", "32-true")
    assert file == cache_file(settings, data, "teacher", "32-true")
    others = [
        cache_file(settings, data, "another", "32-true"),
        cache_file(settings, data, "teacher", "bf16-mixed"),
        cache_file(FloorSettings(99, tmp_path), data, "teacher", "32-true"),
    ]
    assert len({file, *others}) == 4
    assert cache_file(FloorSettings(100, None), data, "teacher") is None
    maps = fitted(linear_network(30, seed=0))
    assert file is not None
    maps.save(file)
    again = AffineMaps.load(file, LAYOUT)
    x = linear_network(3, seed=2)[0]
    assert all(torch.equal(a, b) for a, b in zip(maps(x), again(x), strict=True))


@pytest.mark.slow
def test_floors_of_runs_cost_no_weights_and_are_fitted_once(
    call: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    update = AffineFit.update

    def counted(self: AffineFit, layers: list[Tensor]) -> None:
        fits.append(len(layers[0]))
        update(self, layers)

    monkeypatch.setattr(AffineFit, "update", counted)
    quick = [
        "trainer.max_steps=3",
        "trainer.enable_progress_bar=false",
        "surrogate.boundaries=[5]",
        "data.batch_size=8",
    ]
    results = {}
    for name, more in {
        "with": ["task.floor_images=300"],
        "again": ["task.floor_images=300", "seed=1"],
        "without": ["task.floors=false"],
        "stage1": ["task=distill", "task.floor_images=300"],
    }.items():
        call("train", *quick, *more, f"name={name}")
        results[name] = json.loads((tmp_path / "runs" / "default" / name / "result.json").read_text())
        assert sum(fits) == 300, name
    assert results["with"]["weights_sha256"] == results["without"]["weights_sha256"]
    assert not {"floors", "above_floor"} & set(results["without"])
    surrogate = results["with"]
    assert set(surrogate["floors"]) == {"mean", "layer_0", "affine", "phase_start"}
    assert surrogate["floors"] == results["again"]["floors"]
    for kind in ("cls", "patches"):
        best = max(sum(floor[kind]) / 12 for floor in surrogate["floors"].values())
        own = sum(surrogate["layers"]["0-12"]["r2_centered"][kind]) / 12
        assert surrogate["above_floor"][kind] == pytest.approx(own - best)
        assert surrogate["metrics"][f"val/above_floor_{kind}"] == pytest.approx(own - best, abs=1e-6)
        assert surrogate["metrics"][f"val/r2_centered_{kind}"] == pytest.approx(own, abs=1e-6)
    assert {"val/r2_official_pooled", "val/r2_official_end", "val/eps_cls"} <= set(surrogate["metrics"])
    assert set(results["stage1"]["above_floor"]) == {"0-5", "5-12"}
    assert len(results["stage1"]["floors"]["5-12"]["phase_start"]["cls"]) == 7
