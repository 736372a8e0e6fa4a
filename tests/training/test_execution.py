"""How blocks are executed changes nothing that they compute."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from raptor.errors import ConfigError
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.surrogate import PhaseBlock, PhaseBlocks
from raptor.models.teacher import Teacher
from raptor.partition.phases import Phase, phases_of
from raptor.training.execution import Execution, Progress, check_compiler, execute
from raptor.utils.files import CONFIGS


def gradients(blocks: PhaseBlocks, x: Tensor) -> list[Tensor]:
    total = sum(layer.square().mean() for piece in blocks for layer in piece.steps(x))
    return list(torch.autograd.grad(total, list(blocks.parameters())))  # type: ignore[arg-type]


def saved_bytes(run: Callable[[], object]) -> int:
    """Bytes that the graph of a call keeps for its backward pass, each storage once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()  # noqa: F841 (keeps the graph alive)
    return sum(kept.values())


def test_recomputing_gives_the_same_gradients_from_less_memory(block_config: BlockConfig) -> None:
    blocks = PhaseBlocks(block_config, phases_of([2], 6), seed=0)
    x = torch.randn(64, 7, 16)
    plain, plain_bytes = gradients(blocks, x), saved_bytes(lambda: [list(piece.steps(x)) for piece in blocks])
    for piece in blocks:
        piece.block.recompute = True
    assert all(torch.equal(a, b) for a, b in zip(gradients(blocks, x), plain, strict=True))
    assert saved_bytes(lambda: [list(piece.steps(x)) for piece in blocks]) < plain_bytes / 5


def test_compiled_graphs_serve_all_depths_and_all_blocks(block_config: BlockConfig) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    blocks = PhaseBlocks(block_config, [Phase(0, 5), Phase(5, 8), Phase(8, 12)], seed=0)
    x = torch.randn(2, 7, 16)
    plain = gradients(blocks, x)
    for piece in blocks:
        piece.block.compile_inside(backend=counter)
    torch.testing.assert_close(gradients(blocks, x), plain)
    assert counter.frame_count == 2  # the first step of a rollout needs no gradient of its tokens, the others do
    for piece in blocks:
        piece.block.recompute = True
    torch.testing.assert_close(gradients(blocks, x), plain)


def test_one_compiled_graph_serves_all_blocks_of_a_teacher(monkeypatch: pytest.MonkeyPatch, teacher: Teacher) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    compile_block = Block.compile
    monkeypatch.setattr(Block, "compile", lambda block: compile_block(block, backend=counter))
    images = torch.randn(2, 1, 8, 8)
    plain = list(teacher.requires_grad_(False).steps(teacher.embed(images)))
    execute(teacher, compile=True)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(list(teacher.steps(teacher.embed(images))), plain)
    assert counter.frame_count == 1


class Some(nn.Module):
    """What the callback is given: modules, trained or not."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


def test_the_callback_sets_up_tied_blocks_and_the_teachers(teacher: Teacher, block_config: BlockConfig) -> None:
    teacher.requires_grad_(False)
    trained, frozen = (PhaseBlock(block_config, Phase(0, 4)) for _ in range(2))
    frozen.requires_grad_(False)
    task: Any = Some(teacher, trained, frozen)
    Execution(compile=True, recompute=True).setup(None, task, "validate")  # type: ignore[arg-type]
    assert trained.block._compiled is None and not trained.block.recompute
    Execution(compile=True, recompute=True).setup(None, task, "fit")  # type: ignore[arg-type]
    assert trained.block._compiled is not None and trained.block.recompute
    assert frozen.block._compiled is not None and not frozen.block.recompute
    assert all(block._compiled_call_impl is not None for block in teacher.blocks)
    assert all("_orig_mod" not in name for name in task.state_dict())


def test_recomputing_what_is_not_there_is_refused(teacher: Teacher) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.recompute=true: expected false: this task trains no tied block"):
        Execution(recompute=True).setup(None, Some(teacher), "fit")  # type: ignore[arg-type]


@pytest.mark.parametrize(("accelerator", "variable"), [("cpu", "CXX"), ("gpu", "CC")])
def test_compiling_without_a_compiler_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerator: str, variable: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match=rf"trainer\.compile=true: expected a compiler.*name it as {variable}"):
        check_compiler(accelerator)
    monkeypatch.setenv(variable, "my-compiler")
    with pytest.raises(ConfigError, match=r"\(my-compiler is not on PATH\)"):
        check_compiler(accelerator)
    (tmp_path / "my-compiler").touch(mode=0o755)
    check_compiler(accelerator)


def test_a_copy_of_a_compiled_block_has_weights_of_its_own(block_config: BlockConfig) -> None:
    block = RecurrentBlock(block_config)
    block.compile_inside(backend="eager")
    other, x = copy.deepcopy(block), torch.randn(2, 7, 16)
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    assert not torch.allclose(other(x, torch.tensor(1.0)), block(x, torch.tensor(1.0)))


def test_a_teacher_that_is_trained_is_not_compiled(teacher: Teacher) -> None:
    execute(teacher, compile=True)
    assert all(block._compiled_call_impl is None for block in teacher.blocks)
    execute(teacher.requires_grad_(False), compile=True)
    assert all(block._compiled_call_impl is not None for block in teacher.blocks)


class Linear(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = self.layer(batch[0]).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit_linear(**options: Any) -> None:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 2)))
    quiet: Any = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    pl.Trainer(**quiet | options).fit(Linear(), data)


@pytest.mark.parametrize(("every", "looks"), [(1, 12), (4, 3)])
def test_the_bar_looks_at_the_loss_every_so_many_steps(every: int, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = pl.callbacks.RichProgressBar.get_metrics

    def counting(self: Any, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        seen.append(trainer.global_step)
        return real(self, trainer, module)

    monkeypatch.setattr(pl.callbacks.RichProgressBar, "get_metrics", counting)

    fit_linear(max_epochs=1, callbacks=[Progress(every)])
    steps = [step for step in seen if step]
    assert looks <= len(set(steps)) <= looks + 1 and len(seen) <= 2 * looks + 4


def test_the_bar_names_steps_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit_linear(max_steps=3, callbacks=[Progress()], logger=pl.loggers.CSVLogger(tmp_path))
    shown = capsys.readouterr().out
    assert "Training" in shown and "3/3" in shown and "loss" in shown
    assert "Epoch" not in shown and "v_num" not in shown


def test_a_gpu_compiles_and_a_cpu_does_not() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cpu, gpu = (compose("train", [f"trainer={name}"]).trainer for name in ("cpu", "gpu_bf16"))
    assert (cpu.compile, cpu.recompute, cpu.keep_memory) == (False, False, True)
    assert (gpu.compile, gpu.recompute, gpu.keep_memory, gpu.precision) == (True, False, False, "bf16-mixed")


def test_bf16_autocast_keeps_the_residual_stream_in_float32() -> None:
    block = RecurrentBlock(BlockConfig(32, 2, layer_scale=1e-5))
    x = torch.randn(2, 7, 32)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x, torch.tensor(1.0))
    assert y.dtype == torch.float32
    update = block(x, torch.tensor(1.0)) - x
    assert (y - x - update).norm() < 0.02 * update.norm()  # of 1e-5 of x, which bfloat16 could not hold
