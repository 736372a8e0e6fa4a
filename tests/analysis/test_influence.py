import pytest
import torch
import torch.nn.functional as F

from raptor.analysis.influence import Influence
from raptor.tasks.distillation.rivals import most_influential


def layers(images: int) -> list[torch.Tensor]:
    """Layers 0..4; layer 3 is layer 2, as after a block that is the identity."""
    x = torch.randn(images, 5, 8)
    found = [x]
    for _ in range(3):
        found.append(found[-1] + torch.randn(images, 5, 8))
    return [*found[:3], found[2], found[3]]


def test_an_inserted_identity_is_the_first_to_go() -> None:
    influence = Influence()
    for images in (3, 4):
        influence.update(layers(images))
    values = influence.compute()
    assert values[2] == pytest.approx(0.0, abs=1e-12)
    assert min(values[:2] + values[3:]) > 0.05
    assert most_influential(values, 3) == [1, 2, 4]
    assert most_influential(values, 4) == [1, 2, 3, 4]


@pytest.mark.parametrize("span", [1, 2, 4])
def test_influence_is_the_mean_over_all_tokens_whatever_the_batches(span: int) -> None:
    batches = [layers(n) for n in (2, 5)]
    influence = Influence(span)
    for batch in batches:
        influence.update(iter(batch))
    whole = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    expected = [1 - float(F.cosine_similarity(a, b, dim=-1).mean()) for a, b in zip(whole, whole[span:], strict=False)]
    assert influence.compute() == pytest.approx(expected, abs=1e-6)
