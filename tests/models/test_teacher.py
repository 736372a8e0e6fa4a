from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import raptor
from raptor.errors import ConfigError, ModelFileError
from raptor.models.io import save
from raptor.models.pretrained import build_teacher
from raptor.models.teacher import Teacher, freeze
from tests.conftest import TINY, tiny_spec

ARCHITECTURES = [  # with and without class token, registers, pre-norm, LayerScale, parallel branches, SwiGLU
    "vit_tiny_patch16_224",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch14_dinov2",
    "vit_giant_patch14_reg4_dinov2",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch32_clip_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_224.mae",
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "vit_medium_patch16_gap_240",
    "vit_little_patch16_reg1_gap_256",
    "vit_betwixt_patch16_reg4_gap_256",
    "vit_pwee_patch16_reg1_gap_256",
    "vit_small_patch16_18x2_224",
    "flexivit_small",
    "aimv2_large_patch14_224",
]


@pytest.mark.parametrize("grid", [(2, 2), (4, 3)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_composed_equal_timm_exactly(name: str, grid: tuple[int, int]) -> None:
    patch = 14 if "patch14" in name else 32 if "patch32" in name else 16
    options: dict[str, Any] = {"img_size": [patch * n for n in grid], "depth": 3}
    torch.manual_seed(0)
    vit = timm.create_model(name, **options).eval()
    torch.manual_seed(0)
    teacher = build_teacher(name, options).eval()
    images = torch.randn(2, *teacher.input_shape)
    with torch.no_grad():
        x = teacher.embed(images)
        middle = teacher.num_layers // 2
        acts = torch.cat([teacher.layers(x, 0, middle), teacher.layers(teacher.run_to(x), teacher.num_layers)], dim=1)
        end = teacher.layers(acts[:, -1], middle)[:, -1]
        assert torch.equal(teacher.norm(end), vit.forward_features(images))
        assert torch.equal(teacher(images), vit.forward_features(images))
        if vit.num_classes:
            assert torch.equal(teacher.classify(images), vit(images))
        ours = teacher.get_intermediate_layers(images, n=[0, 2], reshape=True, return_prefix_tokens=True, norm=True)
        theirs = vit.get_intermediate_layers(images, n=[0, 2], reshape=True, return_prefix_tokens=True, norm=True)
        for a, b in zip(ours, theirs, strict=True):  # pairs where there is a class token or registers
            assert type(a) is type(b) and all(map(torch.equal, a, b))
        assert torch.equal(teacher.get_intermediate_layers(images)[0], vit.get_intermediate_layers(images)[0])
    assert x.shape[1] == teacher.layout.num_tokens == vit.num_prefix_tokens + grid[0] * grid[1]
    assert teacher.num_layers == len(vit.blocks)
    assert teacher.feature_info == [{**info, "reduction": patch} for info in vit.feature_info]


def test_dinov2_with_registers_has_the_papers_tokens() -> None:
    teacher = build_teacher("vit_base_patch14_reg4_dinov2", {"img_size": 224, "depth": 1})
    layout = teacher.layout
    assert (layout.cls, layout.registers, layout.patches, layout.num_tokens) == (1, 4, 256, 261)
    assert teacher.spec.mean == pytest.approx((0.485, 0.456, 0.406))


def test_other_architectures_and_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"share one token grid.*SwinTransformer has layers of 4, 8, 16, 32 pixels"):
        build_teacher("swin_tiny_patch4_window7_224")
    with pytest.raises(ConfigError, match="cuts the image into patches by itself"):
        build_teacher("vit_small_r26_s32_224")
    with pytest.raises(ConfigError, match="distillation token"):
        build_teacher("deit_tiny_distilled_patch16_224")
    with pytest.raises(ConfigError, match=r"set teacher\.options\.img_size"):
        build_teacher("vit_tiny_patch16_224", {"dynamic_img_size": True})
    for size, nearest in ((33, r"\[32,32\]"), ([48, 60], r"\[48,64\]"), (7, r"\[16,16\]")):
        with pytest.raises(ConfigError, match=rf"^teacher\.options\.img_size=\[.*patch size 16.*Fix: set {nearest}\.$"):
            build_teacher("vit_tiny_patch16_224", {"img_size": size, "depth": 1})
    assert build_teacher("vit_so400m_patch14_siglip_384", {"depth": 1, "embed_dim": 16, "num_heads": 2}).grid == (
        27,
        27,
    )
    with pytest.raises(ConfigError, match=r"a model of timm\. Fix: write .*vit_small"):
        build_teacher("vit_smal_patch16_224")
    with pytest.raises(ConfigError, match="nonsense"):
        build_teacher("vit_tiny_patch16_224", {"nonsense": 3})
    with pytest.raises(ConfigError, match=r"mean=\[0\.5,0\.5\]: expected 1 numbers"):
        build_teacher("vit_tiny_patch16_224", TINY, mean=[0.5, 0.5], std=[0.5])


def test_packaged_digits_vit_loads_and_classifies() -> None:
    teacher = raptor.load("package:digits_vit")
    assert teacher.num_layers == 12
    from raptor.data.digits import Digits

    data = Digits()
    data.prepare(teacher.input_shape, teacher.spec.mean, teacher.spec.std)
    images, labels = data.val_images.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        right = (teacher.classify(data.normalize(images)).argmax(1) == labels).float().mean()
    assert right >= 0.97


def test_weights_come_from_a_folder_or_a_file_in_timms_layout(tmp_path: Any, teacher: Teacher) -> None:
    save(teacher, tmp_path / "folder")
    vit = teacher.spec.build()
    torch.nn.init.normal_(vit.cls_token)
    save_file(vit.state_dict(), tmp_path / "timm.safetensors")
    arguments: dict[str, Any] = {
        "name": teacher.spec.name,
        "options": teacher.spec.options,
        "mean": [0.3],
        "std": [0.4],
    }
    from_folder = build_teacher(**arguments, weights=tmp_path / "folder")
    assert torch.equal(from_folder.blocks[3].mlp.fc2.weight, teacher.blocks[3].mlp.fc2.weight)
    from_file = build_teacher(**arguments, weights=tmp_path / "timm.safetensors").eval()
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(from_file(images), vit.eval().forward_features(images))


def test_weights_of_another_shape_or_kind_are_named(tmp_path: Any, teacher: Teacher) -> None:
    save(teacher, tmp_path / "folder")
    wider = {**teacher.spec.options, "embed_dim": 32}
    with pytest.raises(ModelFileError, match=r"teacher\.weights=.*\(16,\), expected \(32,\)"):
        build_teacher(teacher.spec.name, wider, weights=tmp_path / "folder", mean=[0.3], std=[0.4])
    deeper = {**teacher.spec.options, "depth": 5}
    with pytest.raises(ModelFileError, match=r"tensors missing \(blocks\.4"):
        build_teacher(teacher.spec.name, deeper, weights=tmp_path / "folder", mean=[0.3], std=[0.4])
    with pytest.raises(ModelFileError, match="expected a file that exists"):
        build_teacher("vit_tiny_patch16_224", TINY, weights=tmp_path / "nowhere", mean=[0.3], std=[0.4])


def test_frozen_means_no_gradient_and_eval() -> None:
    teacher = freeze(Teacher(tiny_spec(drop_path_rate=0.5)))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(teacher(images), teacher(images))
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(("rate", "rates"), [(None, [0.0, 0.1, 0.2, 0.3]), (0.6, [0.6] * 4), (0.0, [0.0] * 4)])
def test_stochastic_depth_grows_with_depth_or_is_even(rate: float | None, rates: list[float]) -> None:
    teacher = build_teacher(
        "vit_tiny_patch16_224", {**TINY, "depth": 4, "drop_path_rate": 0.3}, mean=[0.3], std=[0.4], drop_path=rate
    )
    for name in ("drop_path1", "drop_path2"):
        found = [float(getattr(getattr(block, name), "drop_prob", 0.0)) for block in teacher.blocks]
        assert found == pytest.approx(rates)


@pytest.mark.parametrize("rate", [1.0, -0.1, True])
def test_a_rate_of_stochastic_depth_is_a_share(rate: float) -> None:
    with pytest.raises(ConfigError, match=rf"(?i)teacher\.drop_path={rate}: expected number >= 0 < 1"):
        build_teacher("vit_tiny_patch16_224", {**TINY, "depth": 2}, mean=[0.3], std=[0.4], drop_path=rate)
