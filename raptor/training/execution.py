"""How blocks are executed, chosen by the trainer: compiled or not, with recomputation or not."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from timm.models.vision_transformer import Block
from torch import nn

from raptor.errors import ConfigError
from raptor.models.block import RecurrentBlock
from raptor.training.allocator import keep_freed_memory


def execute(module: nn.Module, *, compile: bool = False, recompute: bool = False) -> None:
    """Set up all blocks within a module; the mathematics stays the same.

    Parameters
    ----------
    module
        Anything that holds tied blocks, or the blocks of a frozen teacher. A teacher that is being trained is left
        alone: its blocks have rates of stochastic depth of their own, for each of which a graph would be compiled.
    compile
        Compile each block by itself. Pays on a GPU, after a minute for the first step.
    recompute
        Keep only the layers that trained tied blocks put out, and compute the inside of a block once more in the
        backward pass (activation checkpointing).

    Raises
    ------
    ConfigError
        If there is no tied block to recompute.
    """
    tied = [part for part in module.modules() if isinstance(part, RecurrentBlock)]
    trained = [block for block in tied if _is_trained(block)]
    if recompute and not trained:
        expected = "false: this task trains no tied block"
        raise ConfigError.of("trainer.recompute", recompute, expected, "set trainer.recompute=false")
    for block in trained:
        block.recompute = recompute
    if compile:
        for block in tied:
            block.compile_inside()
        for part in module.modules():
            if isinstance(part, Block) and not _is_trained(part):
                part.compile()


def check_compiler(accelerator: str) -> None:
    """Look for the compiler that torch.compile calls, before anything is run.

    Parameters
    ----------
    accelerator
        Lightning's name of the device kind.

    Raises
    ------
    ConfigError
        If there is none.
    """
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    # where Triton and torch look
    of_torch = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    variable, usual = ("CC", ["clang", "gcc"]) if on_gpu else ("CXX", [of_torch])
    names = [named] if (named := os.environ.get(variable)) else usual
    if not any(shutil.which(name) for name in names):
        expected = f"a compiler, which torch.compile calls ({' or '.join(names)} is not on PATH)"
        fix = f"install one, name it as {variable}, or set trainer.compile=false"
        raise ConfigError.of("trainer.compile", True, expected, fix)


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


class Execution(Callback):
    """Run :func:`execute` for a task before it trains.

    Parameters
    ----------
    compile, recompute
        As there.
    keep_memory
        Whether the process keeps what large tensors on the CPU free
        (:func:`raptor.training.allocator.keep_freed_memory`). Not with ``recompute``, which is for too little memory.
    """

    def __init__(self, *, compile: bool = False, recompute: bool = False, keep_memory: bool = False) -> None:
        self.compile, self.recompute, self.keep_memory = compile, recompute, keep_memory

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the blocks up before training."""
        if stage != "fit":
            return
        execute(pl_module, compile=self.compile, recompute=self.recompute)
        if self.keep_memory and not self.recompute:
            keep_freed_memory()


class Progress(RichProgressBar):
    """Lightning's bar, which reads the loss only every so many steps: each read waits for a GPU.

    Epochs and versions are left out: steps decide the end of these runs.

    Parameters
    ----------
    every
        Steps between two reads.
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = every
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return what stands beside the bar: new values every so many steps, else those before."""
        if not trainer.training or trainer.global_step % self.every == 0 or not self._shown:
            self._shown = dict(super().get_metrics(trainer, pl_module))
            self._shown.pop("v_num", None)
        return self._shown

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{'Training':{len(self.validation_description)}}"
