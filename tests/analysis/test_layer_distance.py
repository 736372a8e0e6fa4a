from typing import Any

import numpy as np
import pytest
import torch

from raptor.analysis.layer_distance import LayerDistance, unbiased_hsic
from raptor.analysis.measures import MEASURES
from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout

LAYOUT = TokenLayout(1, 2, 4)


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    """Distance of vectors ``(B, D)`` of two layers."""
    return float(np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(u, v, strict=True)]))


def centred(u: np.ndarray, v: np.ndarray) -> float:
    u, v = u - u.mean(0), v - v.mean(0)
    return float(1 - (u * v).sum() / np.sqrt((u**2).sum() * (v**2).sum()))


def mse(u: np.ndarray, v: np.ndarray) -> float:
    return float(((u - v) ** 2).mean())


BY_HAND = {"cosine": cosine, "centred": centred, "mse": mse}


def by_hand(acts: np.ndarray, groups: list[list[int]], measure: str) -> np.ndarray:
    """Distance written out: mean over token groups."""
    L = acts.shape[1]
    D = np.zeros((L, L))
    for tokens in groups:
        vectors = acts[:, :, tokens].mean(2)
        D += [[BY_HAND[measure](vectors[:, i], vectors[:, j]) for j in range(L)] for i in range(L)]
    return D / len(groups)


@pytest.mark.parametrize("measure", list(BY_HAND))
@pytest.mark.parametrize(
    ("types", "groups"),
    [
        (("cls", "patches"), [[0], [3, 4, 5, 6]]),
        (("registers",), [[1, 2]]),
        (("cls", "registers", "patches"), [[0], [1, 2], [3, 4, 5, 6]]),
    ],
)
def test_distance_equals_the_written_out_sum_over_batches(
    types: tuple[Any, ...], groups: list[Any], measure: str
) -> None:
    acts = torch.randn(10, 5, 7, 8, dtype=torch.float64)
    distance = LayerDistance(LAYOUT, types, measure)
    for batch in acts.split([3, 1, 6]):
        distance.update(batch)
    assert distance.images == 10
    assert np.abs(distance.compute() - by_hand(acts.numpy(), groups, measure)).max() < 1e-12


def test_hsic_is_unbiased_and_equals_its_definition_by_quadruples() -> None:
    v = torch.randn(6, 2, 3, dtype=torch.float64)
    K, M = (v[:, layer] @ v[:, layer].T for layer in range(2))
    # mean over ordered quadruples of distinct images of K_ij (M_ij + M_qr - 2 M_iq)
    terms = [
        K[i, j] * (M[i, j] + M[q, r] - 2 * M[i, q])
        for i in range(6)
        for j in range(6)
        for q in range(6)
        for r in range(6)
        if len({i, j, q, r}) == 4
    ]
    assert float(unbiased_hsic(v)[0, 1]) == pytest.approx(float(torch.stack(terms).mean()))


def test_cka_does_not_depend_on_batches_and_sees_rotation_and_independence() -> None:
    torch.manual_seed(0)
    x = torch.randn(640, 1, 8, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    acts = torch.stack([x, 3 * x @ rotation + 5, torch.randn_like(x)], dim=1)  # independent in the last layer
    layout = TokenLayout(0, 0, 1)
    distances = []
    for sizes in (640, 50, 7):
        distance = LayerDistance(layout, ("patches",), "cka")
        for batch in acts.split(sizes):
            distance.update(batch)
        distances.append(distance.compute())
    assert np.abs(distances[0] - distances[1]).max() < 1e-12
    assert np.abs(distances[0] - distances[2]).max() < 1e-12
    assert distances[0][0, 1] == pytest.approx(0, abs=1e-9)
    assert distances[0][0, 2] == pytest.approx(1, abs=0.05)


def test_centring_takes_off_what_all_images_share() -> None:
    torch.manual_seed(0)
    common = 100 * torch.randn(8)
    acts = torch.randn(64, 2, 7, 8) + common
    near, far = (LayerDistance(LAYOUT, measure=measure) for measure in ("cosine", "centred"))
    near.update(acts)
    far.update(acts)
    assert near.compute()[0, 1] < 1e-3
    assert far.compute()[0, 1] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("measure", MEASURES)
def test_resamples_spread_as_other_samples_do(measure: str) -> None:
    torch.manual_seed(0)
    base = torch.randn(24 * 512, 2, 7, 4)
    base[:, 1] += 0.7 * base[:, 0]
    samples = []
    for acts in base.split(512):
        distance = LayerDistance(LAYOUT, measure=measure)
        distance.update(acts)
        samples.append(distance.compute()[0, 1])
    drawn = np.array(list(distance.resample(400)))
    assert np.array_equal(drawn, np.array(list(distance.resample(400))))
    assert np.abs(drawn.mean(0) - distance.compute())[0, 1] < 2 * np.std(samples)
    assert 0.5 < drawn[:, 0, 1].std() / np.std(samples) < 2
    assert np.array_equal(np.diagonal(drawn, axis1=1, axis2=2), np.zeros((400, 2)))


def test_few_images_are_not_resampled() -> None:
    distance = LayerDistance(LAYOUT)
    distance.update(torch.randn(9, 2, 7, 8))
    assert list(distance.resample(5)) == []
    distance.update(torch.randn(1, 2, 7, 8))
    assert len(list(distance.resample(5))) == 5


def test_same_direction_is_near_and_opposite_is_far() -> None:
    acts = torch.randn(4, 1, 7, 8)
    distance = LayerDistance(LAYOUT)
    distance.update(torch.cat([acts, 3 * acts, -acts], dim=1))
    D = distance.compute()
    assert D[0, 1] == pytest.approx(0, abs=1e-6)
    assert D[0, 2] == pytest.approx(2, abs=1e-6)
    assert np.array_equal(np.diag(D), np.zeros(3))


def test_token_types_that_are_chosen_or_absent() -> None:
    assert LayerDistance(LAYOUT, "auto").types == ("cls", "patches")
    assert LayerDistance(TokenLayout(0, 2, 4), "auto").types == ("patches",)
    assert LayerDistance(TokenLayout(0, 0, 4)).types == ("patches",)
    with pytest.raises(ConfigError, match=r"tokens=\[registers\]: expected types that this model has"):
        LayerDistance(TokenLayout(1, 0, 4), ["registers"])


def test_too_little_to_measure() -> None:
    for measure in MEASURES:
        with pytest.raises(ValueError, match="images=0: expected"):
            LayerDistance(LAYOUT, measure=measure).compute()
    distance = LayerDistance(LAYOUT, measure="cka")
    distance.update(torch.randn(3, 2, 7, 8))
    with pytest.raises(ValueError, match="expected 4 or more for CKA"):
        distance.compute()
    with pytest.raises(ConfigError, match="cosine or centred or mse or cka"):
        LayerDistance(LAYOUT, measure="euclid")
