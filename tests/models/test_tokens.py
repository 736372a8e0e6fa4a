import pytest
import torch

from raptor.errors import ConfigError
from raptor.models.tokens import TokenLayout


def test_slices_follow_the_sequence_order() -> None:
    layout = TokenLayout(cls=1, registers=4, patches=16)
    x = torch.arange(21.0)[None, :, None]
    assert layout.num_tokens == 21
    assert layout.select(x, "cls").flatten().tolist() == [0]
    assert layout.select(x, "registers").flatten().tolist() == [1, 2, 3, 4]
    assert layout.select(x, "patches").flatten().tolist() == list(range(5, 21))
    assert layout.pool(x, "registers").item() == 2.5
    assert layout.features(x).tolist() == [[0.0, 12.5]]


def test_absent_types_are_named(caplog: pytest.LogCaptureFixture) -> None:
    layout = TokenLayout(cls=0, registers=0, patches=4)
    assert layout.types == ("patches",)
    assert layout.features(torch.ones(2, 4, 3)).shape == (2, 3)
    with pytest.raises(ConfigError, match="has: patches"):
        layout.slice("cls")
    with pytest.raises(ConfigError, match=r"tokens=\[cls,registers\]: expected types that this model has: patches"):
        layout.present(["cls", "registers"], "tokens")
    assert layout.present([], "tokens") == ()
    assert not caplog.messages
    with caplog.at_level("INFO"):
        assert layout.present(["cls", "patches"], "tokens") == ("patches",)
    assert caplog.messages == ["tokens: this teacher has no cls tokens, so patches is left"]
    with pytest.raises(ConfigError, match="patches >= 1"):
        TokenLayout(1, 0, 0)


def test_without_class_token_features_are_the_mean_patch() -> None:
    layout, x = TokenLayout(0, 2, 4), torch.randn(3, 6, 5)
    assert torch.equal(layout.features(x), x[:, 2:].mean(1))
    assert layout.num_features(5) == 5
