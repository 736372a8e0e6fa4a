"""Teachers with rotary embedding or relative position bias are distilled by the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import raptor

TINY = [
    *("teacher=timm", "teacher.options.img_size=8", "+teacher.options.patch_size=2", "+teacher.options.in_chans=1"),
    *("+teacher.options.embed_dim=24", "+teacher.options.num_heads=3", "+teacher.options.depth=3"),
    *("+teacher.options.num_classes=10", "teacher.mean=[0.3]", "teacher.std=[0.38]"),
    *("surrogate.k=2", "surrogate.images=32", "recipe.steps=20", "trainer.accelerator=cpu", "name=run"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vit_small_patch16_dinov3", "rope"),
        ("eva02_tiny_patch14_224", "rope"),
        ("vit_pe_core_tiny_patch16_384", "rope"),
        ("vit_small_patch16_rope_mixed_224", "rope"),
        ("beit_base_patch16_224", "relative_bias"),
        ("beitv2_base_patch16_224", "relative_bias"),
    ],
)
def test_a_teacher_with_positions_in_attention_is_distilled(
    call: Callable[..., None], tmp_path: Path, name: str, key: str
) -> None:
    call("train", f"teacher.name={name}", *TINY)
    (folder,) = (path.parent for path in tmp_path.rglob("model.json"))
    surrogate = raptor.load(folder)
    assert surrogate.k == 2 and surrogate.spec.name == name
    assert getattr(surrogate.blocks.config, key) is not None
    if key == "relative_bias":  # which is learned, from zero
        assert all(block.attn.relative_bias.any() for block, _ in surrogate.blocks.applications())
    else:
        teacher_positions = [block.attn.rope for block, _ in surrogate.blocks.applications()]
        assert all((rope[..., 24 // 3 :] <= 1).all() and rope[..., : 24 // 3].any() for rope in teacher_positions)
