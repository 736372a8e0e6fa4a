"""How blocks are executed, chosen by the trainer: compiled or not, with recomputation or not."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer
from timm.models.vision_transformer import Block

from raptor.errors import ConfigError
from raptor.models.block import RecurrentBlock


class Execution(Callback):
    """Set up the blocks of a task before it trains; the mathematics stays the same.

    Parameters
    ----------
    compile
        Compile each block by itself, the teacher's too. Pays on a GPU, after a minute for the first step.
    recompute
        Keep only the layers that tied blocks put out, and compute the inside of a block once more in the backward
        pass (activation checkpointing).
    """

    def __init__(self, compile: bool = False, recompute: bool = False) -> None:
        self.compile, self.recompute = compile, recompute

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before training.

        Raises
        ------
        ConfigError
            If there is no tied block to recompute.
        """
        if stage != "fit":
            return
        tied = [module for module in pl_module.modules() if isinstance(module, RecurrentBlock)]
        trained = [block for block in tied if any(p.requires_grad for p in block.parameters())]
        if self.recompute and not trained:
            raise ConfigError("trainer.recompute=true is for tied blocks, and this task trains none: set it to false")
        for block in trained:
            block.recompute = self.recompute
        if self.compile:
            for block in tied:
                block.compile_inside()
            for module in pl_module.modules():
                if isinstance(module, Block):
                    module.compile()
