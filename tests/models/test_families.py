"""Teachers of timm's Eva and Beit: layers equal timm's, and tied blocks get the positions of attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.beit import gen_relative_position_index
from torch import Tensor, nn

import raptor
from raptor.errors import ConfigError
from raptor.models.attention import relative_index, resize_bias
from raptor.models.export import export_program
from raptor.models.initialization import block_config, init_from_teacher
from raptor.models.io import save
from raptor.models.options import BlockOptions
from raptor.models.pretrained import build_teacher
from raptor.models.surrogate import PhaseBlocks, Surrogate
from raptor.models.teacher import Teacher, freeze
from raptor.partition.phases import phases_of

SMALL = {"embed_dim": 48, "num_heads": 3, "depth": 3}
ARCHITECTURES = {
    "eva02_tiny_patch14_224": "rotary, SwiGLU",
    "eva02_base_patch16_clip_224": "rotary, separate q, k, v, norms within attention and MLP",
    "eva_giant_patch14_224": "no rotary embedding",
    "vit_small_patch16_dinov3": "DINOv3, registers, input size left open",
    "vit_small_plus_patch16_dinov3_qkvb": "DINOv3 with SwiGLU",
    "vit_pe_core_tiny_patch16_384": "Perception Encoder with attention pooling",
    "vit_pe_spatial_tiny_patch16_512": "Perception Encoder without final norm",
    "vit_medium_patch16_rope_reg1_gap_256": "registers without class token",
    "vit_small_patch16_rope_mixed_224": "learned rotary embedding of each layer and head",
    "beit_base_patch16_224": "relative position bias of each layer",
    "beitv2_base_patch16_224": "BEiT v2",
}
SHARED: dict[str, Any] = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}


def shaken(model: nn.Module) -> None:
    """Weights away from their start, at which biases are zero and layers nearly the identity."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def make(name: str, grid: tuple[int, int] = (2, 3), **options: Any) -> Teacher:
    patch = 14 if "patch14" in name else 16
    torch.manual_seed(0)
    values = {**SMALL, "img_size": [patch * n for n in grid], "num_classes": 5, **options}
    teacher = build_teacher(name, values)
    shaken(teacher)
    return freeze(teacher)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "beit_base_patch16_224 shared"])
def test_layers_composed_equal_timm_exactly(name: str) -> None:
    name, _, shared = name.partition(" ")
    teacher = make(name, **(SHARED if shared else {}))
    options = {**teacher.spec.options, **({"dynamic_img_size": True} if "dinov3" in name else {})}
    vit = timm.create_model(name, **options).eval()
    vit.load_state_dict(teacher.as_timm().state_dict())
    vit.requires_grad_(False)  # a mask with a gradient goes through another kernel
    images = torch.randn(2, *teacher.input_shape)
    x, prefix = teacher.embed(images), vit.num_prefix_tokens
    layers = [layer[0] if prefix else layer for layer in intermediates(vit, images)]
    ours = teacher.rollout(x)
    for layer, theirs in enumerate(layers):
        maps = teacher.layout.select(ours[:, layer], "patches").transpose(1, 2).unflatten(2, teacher.grid)
        assert torch.equal(maps, theirs)
        assert torch.equal(teacher.apply_block(ours[:, layer - 1] if layer else x, layer + 1), ours[:, layer])
    assert torch.equal(teacher.layers(ours[:, 0], 1), ours[:, 1:])
    assert torch.equal(teacher(images), vit.forward_features(images))
    assert torch.equal(teacher.classify(images), vit(images))
    assert x.shape[1] == teacher.layout.num_tokens == prefix + 6


def intermediates(vit: Any, images: Tensor) -> list[Any]:
    prefix = bool(vit.num_prefix_tokens)
    return vit.forward_intermediates(images, return_prefix_tokens=prefix, intermediates_only=True)


def surrogate_of(teacher: Teacher, boundaries: list[int], init: str = "random", **options: Any) -> Surrogate:
    config = block_config(teacher, BlockOptions(**options))
    blocks = PhaseBlocks(config, phases_of(boundaries, teacher.num_layers), seed=0)
    teacher.hand_rope(blocks.applications())
    init_from_teacher(blocks, teacher, init)
    return Surrogate.of_teacher(teacher, blocks).eval()


@pytest.mark.parametrize(
    ("name", "mlp"),
    [
        ("vit_small_patch16_dinov3", "gelu"),
        ("vit_small_patch16_rope_mixed_224", "gelu"),
        ("vit_pe_core_tiny_patch16_384", "gelu"),
        ("eva02_tiny_patch14_224", "swiglu"),
        ("beit_base_patch16_224", "gelu"),
        ("beit_base_patch16_224 shared", "gelu"),
    ],
)
def test_a_block_for_each_layer_that_begins_as_the_teachers_is_the_teacher(name: str, mlp: Any) -> None:
    """Rotary embeddings and biases reach the blocks: with them gone the layers differ."""
    name, _, shared = name.partition(" ")
    teacher = make(name, **(SHARED if shared else {}))
    hidden = next(p.shape[1] for n, p in teacher.named_parameters() if n == "blocks.0.mlp.fc2.weight")
    scaled = any("gamma_1" in n for n, _ in teacher.named_parameters())
    options: dict[str, Any] = {
        "mlp": mlp,
        "mlp_ratio": hidden / 48,
        "depth_scaling": False,
        "layer_scale": 1e-5 if scaled else None,
    }
    x = torch.randn(2, teacher.layout.num_tokens, 48)
    surrogate, layers = surrogate_of(teacher, [1, 2], "middle", **options), teacher.rollout(x)
    torch.testing.assert_close(surrogate.rollout(x), layers, rtol=1e-3, atol=1e-3)
    forced = surrogate.teacher_forced([x, layers[:, 0], layers[:, 1]])
    torch.testing.assert_close(torch.stack(forced, dim=1), layers, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for block, _ in surrogate.blocks.applications():
            if block.attn.rope is not None:
                block.attn.rope.copy_(block.attn.rope.roll(1, dims=1))
            if block.attn.relative_bias is not None:
                block.attn.relative_bias.copy_(block.attn.relative_bias.roll(1, dims=0))
    assert not torch.allclose(surrogate.rollout(x), layers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224", "beit_base_patch16_224"]
)
def test_a_surrogate_travels_with_its_positions(tmp_path: Path, name: str) -> None:
    teacher = make(name)
    surrogate = freeze(surrogate_of(teacher, [1]))
    shaken(surrogate)
    images = torch.randn(2, *teacher.input_shape)
    save(surrogate, tmp_path / "surrogate")
    save(teacher, tmp_path / "teacher")
    for folder, model in (("surrogate", surrogate), ("teacher", teacher)):
        assert torch.equal(freeze(raptor.load(tmp_path / folder))(images), model(images))
    assert export_program(surrogate, tmp_path / "surrogate.pt2") < 1e-4


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "beit_base_patch16_224"])
def test_a_surrogate_is_opened_at_another_size(tmp_path: Path, name: str) -> None:
    teacher = make(name, grid=(2, 2))
    surrogate = surrogate_of(teacher, [1])
    save(teacher, tmp_path)
    options = {**teacher.spec.options, "img_size": [64, 64]}
    wide = freeze(build_teacher(name, options, weights=tmp_path))
    opened = surrogate.at_resolution_of(wide)
    again = surrogate_of(wide, [1])
    assert opened.blocks.config == again.blocks.config and opened.blocks is not surrogate.blocks
    block, _ = next(opened.blocks.applications())
    rope = block.attn.rope
    assert rope is None or torch.equal(rope, wide.rope_of(1))  # type: ignore[arg-type]
    assert opened(torch.randn(1, *wide.input_shape)).shape == (1, wide.layout.num_tokens, 48)
    with pytest.raises(ConfigError, match="blocks with positions for the teacher's"):
        Surrogate.of_teacher(wide, surrogate.blocks)


def test_blocks_have_positions_as_the_options_say() -> None:
    teacher = make("vit_small_patch16_dinov3")
    options = BlockOptions()
    config = block_config(teacher, options)
    assert config.rope is not None and config.rope.tokens == teacher.layout.num_tokens and config.rope.half
    assert block_config(teacher, replace(options, rope="none")).rope is None
    with pytest.raises(ConfigError, match=r"surrogate\.block\.num_heads=4: expected null.*3 heads of 16.*rope=none"):
        block_config(teacher, replace(options, num_heads=4))
    beit = make("beit_base_patch16_224")
    assert block_config(beit, options).relative_bias == (2, 3)
    assert block_config(beit, replace(options, relative_bias="none")).relative_bias is None
    plain = block_config(build_teacher("vit_tiny_patch16_224", {"depth": 1, "img_size": 32}), options)
    assert plain.rope is None and plain.relative_bias is None
    assert "rope" not in plain.to_dict()  # as folders were written before
    first, *_ = teacher.rope_of(1).chunk(2, dim=-1)  # type: ignore[union-attr]
    assert not first[:, :5].any() and first[:, 5:].any()  # class token and registers are not rotated


def test_a_bias_that_grows_with_the_offset_does_so_at_another_grid() -> None:
    """timm samples more densely near zero: order, ends and symmetry of a linear table stay."""
    table = torch.cat([torch.arange(-3.0, 4).repeat_interleave(7), torch.tensor([5.0, 6, 7])])[:, None]
    resized = resize_bias(table, (4, 4), (7, 7))[:, 0]
    assert torch.equal(resized[-3:], table[-3:, 0])
    rows = resized[:-3].view(13, 13)
    torch.testing.assert_close(rows, rows[:, :1].expand(13, 13), rtol=0, atol=1e-4)
    column = rows[:, 0]
    assert bool((column.diff() >= 0).all()) and float(column[0]) == -3 and float(column[-1]) == 3
    torch.testing.assert_close(column, -column.flip(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("grid", [(2, 3), (4, 4)])
def test_offsets_are_numbered_as_beit_does(grid: tuple[int, int]) -> None:
    assert torch.equal(relative_index(grid), gen_relative_position_index(grid))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("cait_xxs24_224", {}, "blocks of Cait take what only Cait gives them"),
        ("swin_tiny_patch4_window7_224", {}, "layers of 4, 8, 16, 32 pixels a token"),
        ("vit_small_patch16_dinov3", {"patch_drop_rate": 0.5}, r"teacher\.options\.patch_drop_rate"),
    ],
)
def test_what_stays_refused_is_refused_with_the_reason(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_teacher(name, options)
    eva = make("eva02_base_patch16_clip_224")
    with pytest.raises(ConfigError, match=r"the teacher has attn\.norm, which tied blocks have not"):
        surrogate_of(eva, [1], "middle")
