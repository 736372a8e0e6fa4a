import numpy as np

from raptor.partition.phases import label_layers
from raptor.partition.quality import quality
from raptor.partition.stability import stability


def planted(boundaries: list[int], noise: np.ndarray) -> np.ndarray:
    labels = np.array(label_layers(boundaries, 8))
    D = np.where(labels[:, None] == labels[None, :], 0.2, 1.0) + noise + noise.T
    np.fill_diagonal(D, 0)
    return D


def test_a_clear_partition_comes_again_and_an_ambiguous_one_does_not() -> None:
    rng = np.random.default_rng(0)
    small = [planted([3, 6], 0.01 * rng.random((8, 8))) for _ in range(50)]
    found = stability(small, {"3": [3, 6]}, "normalised")["3"]
    assert found["same"] == 1.0
    assert found["cuts"] == {"3": 1.0, "6": 1.0}
    low, high = found["contrast"]
    assert low <= quality(small[0], [3, 6])["contrast"] <= high

    either = [planted(edges, np.zeros((8, 8))) for edges in ([3], [5], [3], [3])]
    assert stability(either, {"2": [3]}, "normalised")["2"]["cuts"] == {"3": 0.75, "5": 0.25}
    assert stability(either, {"2": [3]}, "normalised")["2"]["same"] == 0.75
    assert stability(either, {"1": []}, "exact")["1"] == {
        "same": 1.0,
        "cuts": {},
        "contrast": None,
        "share": [0.0, 0.0],
    }
