"""Import of the official project's pickled modules. The modules here are written from the paper's facts alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import raptor
from raptor.errors import ConfigError, ModelFileError
from raptor.models.io import save
from raptor.models.official import read_official, read_thresholds
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher

WIDTH = 16


def as_class_of(module: str) -> Any:
    def rename(cls: type) -> type:
        cls.__module__, cls.__qualname__ = module, cls.__name__
        return cls

    return rename


@as_class_of("block")
class SwiGLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return nn.functional.silu(gate) * value


@as_class_of("block")
class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


@as_class_of("block")
class Block(nn.Module):
    def __init__(self, swiglu: bool, t_scale: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=1e-5)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.ls1 = LayerScale()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-5)
        hidden = 4 * WIDTH
        up = nn.Linear(WIDTH, 2 * hidden if swiglu else hidden)
        self.mlp = nn.Sequential(up, SwiGLU() if swiglu else nn.GELU(), nn.Linear(hidden, WIDTH))
        self.ls2 = LayerScale()
        self.t_proj = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 3 * WIDTH)) if t_scale else None

    def forward(self, x: Tensor, t: int) -> Tensor:
        s1 = s2 = s3 = torch.ones((), dtype=x.dtype)
        if self.t_proj is not None:
            s1, s2, s3 = (1 + self.t_proj(torch.tensor([float(t)], dtype=x.dtype))).chunk(3)
        y = self.norm1(x)
        x = x + s1 * self.ls1(self.attn(y, y, y)[0])
        x = x + s2 * self.ls2(self.mlp(self.norm2(x)))
        return s3 * x


@as_class_of("raptor")
class Raptor(nn.Module):
    def __init__(self, blocks: list[Block], thresholds: list[int]) -> None:
        super().__init__()
        self.blocks, self.thresholds = nn.ModuleList(blocks), thresholds


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the classes known under the names that the official project has, for saving only."""
    module = ModuleType("block")
    for cls in (SwiGLU, LayerScale, Block):
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "block", module)
    monkeypatch.setattr(raptor, "Raptor", Raptor, raising=False)
    yield


def randomise(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for p in module.parameters():
        p.data.normal_(std=0.3)
    return module


@pytest.mark.parametrize("swiglu", [True, False])
@pytest.mark.parametrize("t_scale", [True, False])
@pytest.mark.usefixtures("official")
def test_a_raptor_rolls_out_as_the_original(tmp_path: Path, swiglu: bool, t_scale: bool) -> None:
    original = randomise(Raptor([Block(swiglu, t_scale) for _ in range(3)], [7, 10, 12])).double()
    torch.save(original, tmp_path / "in.pt")
    save(read_official(tmp_path / "in.pt"), tmp_path / "out")
    blocks = raptor.load(tmp_path / "out")
    assert isinstance(blocks, PhaseBlocks)
    assert [tuple(p) for p in blocks.phases] == [(0, 7), (7, 10), (10, 12)]
    assert blocks.config.mlp == ("swiglu" if swiglu else "gelu")
    x = y = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        for ours, theirs in zip(blocks, original.blocks, strict=True):
            for t, step in enumerate(ours.steps(x), start=ours.phase.start + 1):
                y = theirs(y, t)
                assert step.dtype == torch.float64
                torch.testing.assert_close(step, y, rtol=0, atol=1e-6)
                x = step


@pytest.mark.usefixtures("official")
def test_the_script_makes_a_surrogate_without_the_original_classes(tmp_path: Path, teacher: Teacher) -> None:
    torch.save(randomise(Raptor([Block(True), Block(True)], [0, 1, 4])), tmp_path / "in.pt")
    save(teacher, tmp_path / "teacher")
    script = Path(__file__).parents[2] / "scripts" / "import_official.py"
    command = [sys.executable, str(script), "in.pt", "out", "--teacher", "teacher"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 blocks of width 16 (swiglu), phases 0-1, 1-4" in done.stdout
    surrogate = raptor.load(tmp_path / "out")
    assert surrogate.boundaries == [1]
    assert surrogate(torch.randn(2, 1, 8, 8)).shape == (2, teacher.layout.num_tokens, WIDTH)


@pytest.mark.usefixtures("official")
def test_a_single_block_needs_its_phase(tmp_path: Path) -> None:
    torch.save(randomise(Block(True)), tmp_path / "block.pt")
    with pytest.raises(ConfigError, match="single block"):
        read_official(tmp_path / "block.pt")
    blocks = read_official(tmp_path / "block.pt", phase=(7, 10))
    assert [tuple(p) for p in blocks.phases] == [(7, 10)]


@pytest.mark.parametrize("thresholds", [[7, 10, 12], [0, 7, 10, 12], [7, 10], [0, 7, 10], torch.tensor([7, 10])])
def test_thresholds_with_and_without_their_ends(thresholds: Any) -> None:
    assert [tuple(p) for p in read_thresholds(thresholds, 3, 12)] == [(0, 7), (7, 10), (10, 12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: setattr(b, "norm3", nn.LayerNorm(WIDTH)), r"weights that are not read \(norm3\.weight"),
        (lambda b: setattr(b, "ls1", nn.Identity()), "LayerScale on one branch only"),
        (lambda b: setattr(b, "norm1", nn.RMSNorm(WIDTH)), "RMSNorm as norm1"),
        (lambda b: b.t_proj.__setitem__(1, nn.GELU()), "GELU as t_proj.1"),
        (lambda b: setattr(b, "t_scale", False), "t_scale is off"),
        (lambda b: setattr(b.attn, "add_zero_attn", True), "adds a zero token"),
        (lambda b: b.mlp.append(nn.Linear(WIDTH, WIDTH)), "4 parts in mlp"),
        (lambda b: b.mlp.__setitem__(0, nn.Linear(WIDTH, 3 * WIDTH)), "expected the weights of this model"),
    ],
)
@pytest.mark.usefixtures("official")
def test_what_our_block_cannot_compute_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    block = Block(True)
    change(block)
    torch.save(block, tmp_path / "odd.pt")
    with pytest.raises(ModelFileError, match=message):
        read_official(tmp_path / "odd.pt", phase=(0, 2))


@pytest.mark.usefixtures("official")
def test_dropout_is_passed_over_and_phases_are_checked(tmp_path: Path) -> None:
    block = Block(True)
    block.mlp.insert(2, nn.Dropout(0.1))
    torch.save(Raptor([block, Block(True)], [3, 5]), tmp_path / "in.pt")
    assert [tuple(p) for p in read_official(tmp_path / "in.pt", thresholds=[2, 6]).phases] == [(0, 2), (2, 6)]
    with pytest.raises(ConfigError, match="leave --phase out"):
        read_official(tmp_path / "in.pt", phase=(0, 2))
    torch.save(block, tmp_path / "block.pt")
    with pytest.raises(ConfigError, match=r"phase=3-1: expected 0 <= start < end"):
        read_official(tmp_path / "block.pt", phase=(3, 1))


def test_thresholds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="give --layers"):
        read_thresholds([7, 10], 3, None)
    with pytest.raises(ConfigError, match="expected 3 phases"):
        read_thresholds([7, 12], 3, 12)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.usefixtures("official")
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    model = randomise(Raptor([Block(True)], [4]))
    model.extra = Evil(tmp_path / "ran")  # type: ignore[assignment]
    torch.save(model, tmp_path / "evil.pt")
    with pytest.raises(ModelFileError, match=r"names posix.mkdir.*nothing was run"):
        read_official(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("official")
def test_other_architectures_and_damaged_files_are_named(tmp_path: Path) -> None:
    tanh = Block(False)
    tanh.mlp[1] = nn.GELU("tanh")
    torch.save(tanh, tmp_path / "tanh.pt")
    with pytest.raises(ModelFileError, match="approximated by 'tanh'"):
        read_official(tmp_path / "tanh.pt", phase=(0, 2))
    torch.save(nn.Linear(2, 2), tmp_path / "linear.pt")
    with pytest.raises(ModelFileError, match="nothing as norm1, where LayerNorm is expected"):
        read_official(tmp_path / "linear.pt", phase=(0, 2))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "tanh.pt").read_bytes()[:500])
    with pytest.raises(ModelFileError, match="damaged"):
        read_official(tmp_path / "cut.pt", phase=(0, 2))
    with pytest.raises(ModelFileError, match="missing"):
        read_official(tmp_path / "nowhere.pt")
