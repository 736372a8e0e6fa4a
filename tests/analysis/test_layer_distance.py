import numpy as np
import pytest
import torch

from raptor.analysis.layer_distance import LayerDistance
from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout

LAYOUT = TokenLayout(1, 2, 4)


def by_hand(acts: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Distance written out: mean over images and token groups of 1 - cosine of mean tokens."""
    B, L, _, _ = acts.shape
    D = np.zeros((L, L))
    for b in range(B):
        for tokens in groups:
            for i in range(L):
                for j in range(L):
                    u, v = acts[b, i, tokens].mean(0), acts[b, j, tokens].mean(0)
                    D[i, j] += 1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    return D / (B * len(groups))


@pytest.mark.parametrize(
    ("types", "groups"),
    [
        (("cls", "patches"), [[0], [3, 4, 5, 6]]),
        (("registers",), [[1, 2]]),
        (("cls", "registers", "patches"), [[0], [1, 2], [3, 4, 5, 6]]),
    ],
)
def test_distance_equals_the_written_out_sum_over_batches(types: tuple, groups: list) -> None:
    acts = torch.randn(10, 5, 7, 8, dtype=torch.float64)
    distance = LayerDistance(LAYOUT, types)
    for batch in acts.split([3, 1, 6]):
        distance.update(batch)
    assert distance.images == 10
    assert np.abs(distance.compute() - by_hand(acts.numpy(), groups)).max() < 1e-12


def test_same_direction_is_near_and_opposite_is_far() -> None:
    acts = torch.randn(4, 1, 7, 8)
    distance = LayerDistance(LAYOUT)
    distance.update(torch.cat([acts, 3 * acts, -acts], dim=1))
    D = distance.compute()
    assert D[0, 1] == pytest.approx(0, abs=1e-6)
    assert D[0, 2] == pytest.approx(2, abs=1e-6)
    assert np.array_equal(np.diag(D), np.zeros(3))


def test_absent_token_type_and_no_batches() -> None:
    with pytest.raises(ConfigError, match="tokens asks for 'cls'"):
        LayerDistance(TokenLayout(0, 0, 4))
    with pytest.raises(ValueError, match="no activations"):
        LayerDistance(LAYOUT).compute()
