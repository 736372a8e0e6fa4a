"""The surrogate: one tied block for each phase of depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.attention import resize_bias
from raptor.models.backbone import Backbone
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.hub import HubModel
from raptor.models.teacher import Teacher, freeze
from raptor.models.vit import ViTStem, spec_from_dict, spec_to_dict
from raptor.partition.phases import Phase, boundaries_of, phases_of
from raptor.utils.seeding import derive_seed

POSITIONS = ("pos_embed", "relative_position_bias_table")  # parameters of a stem that depend on the size of its images


class PhaseBlock(nn.Module):
    """One recurrent block and the phase of layers that it produces.

    Parameters
    ----------
    config
        Shape and options of the block.
    phase
        Start layer and last layer.
    """

    def __init__(self, config: BlockConfig, phase: Phase) -> None:
        super().__init__()
        self.block = RecurrentBlock(config)
        self.phase = phase

    @property
    def name(self) -> str:
        """The phase, such as ``7-10``."""
        return str(self.phase)

    def steps(self, x_BND: Tensor, start: int | None = None, end: int | None = None) -> Iterator[Tensor]:
        """Apply the block to its own output.

        Parameters
        ----------
        x_BND
            Tokens of layer ``start``, ``(B, N, D)``.
        start, end
            Layers within the phase; None means its own start and end.

        Yields
        ------
        Tensor
            Tokens ``(B, N, D)`` of each of the layers start+1..end.
        """
        first = self.phase.start if start is None else start
        last = self.phase.end if end is None else end
        for factors in self.block.factors(torch.arange(first + 1, last + 1, device=x_BND.device)):
            x_BND = self.block.apply_once(x_BND, factors)
            yield x_BND

    def rollout(self, x_BND: Tensor) -> Tensor:
        """All layers of the phase from the tokens of its start: ``(B, N, D)`` to ``(B, n, N, D)``."""
        return torch.stack(list(self.steps(x_BND)), dim=1)

    def teacher_forced(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Every layer of the phase from the teacher's layer before it, in one batched call.

        Parameters
        ----------
        inputs
            The teacher's layers start..end-1, each ``(B, N, D)``.

        Returns
        -------
        tuple of Tensor
            Predictions of the layers start+1..end, each ``(B, N, D)``.
        """
        return self.block.teacher_forced(inputs, range(self.phase.start + 1, self.phase.end + 1))


class PhaseBlocks(nn.ModuleList, HubModel):
    """Blocks of any phases, not necessarily a whole partition: the product of stage 1.

    Parameters
    ----------
    config
        Shape and options of every block.
    phases
        The phases.
    seed
        Block weights depend on this seed and on the phase alone, not on which other phases are built beside
        it. None leaves them to the global generator.
    """

    kind: ClassVar[str] = "blocks"

    def __init__(self, config: BlockConfig, phases: Sequence[Phase], seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.phases = [Phase(*p) for p in phases]
        if len(set(self.phases)) != len(self.phases) or not self.phases:
            raise ConfigError.of(
                "phases", [str(p) for p in self.phases], "one or more phases, each once", "correct them"
            )
        for phase in self.phases:
            with torch.random.fork_rng(devices=[], enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(derive_seed(seed, "block", *phase))
                self.append(PhaseBlock(config, phase))

    def __iter__(self) -> Iterator[PhaseBlock]:
        return cast(Iterator[PhaseBlock], super().__iter__())

    def of(self, phase: Phase) -> PhaseBlock:
        """Block of one phase.

        Raises
        ------
        ConfigError
            If there is no block for it.
        """
        if phase not in self.phases:
            raise ConfigError.of("phase", phase, f"one of {', '.join(map(str, self.phases))}", "choose among them")
        return next(block for block in self if block.phase == phase)

    def applications(self) -> Iterator[tuple[RecurrentBlock, Sequence[int]]]:
        """Give each block with the layers that it produces."""
        for block in self:
            yield block.block, range(block.phase.start + 1, block.phase.end + 1)

    def at_grid_of(self, teacher: Teacher) -> PhaseBlocks:
        """Return the blocks with positions for a teacher's grid: themselves where they have none, else a copy."""
        old, new = self.config.relative_bias, teacher.grid
        rope = self.config.rope and replace(self.config.rope, tokens=teacher.layout.num_tokens)
        config = replace(self.config, rope=rope, relative_bias=old and new)
        if config == self.config and rope is None:
            return self
        made = PhaseBlocks(config, self.phases, seed=0).to(next(self.parameters()))
        state = {name: tensor for name, tensor in self.state_dict().items() if not name.endswith("attn.rope")}
        if old is not None:
            biases = {name: t for name, t in state.items() if name.endswith("attn.relative_bias")}
            state |= {name: resize_bias(tensor, old, new) for name, tensor in biases.items()}
        made.load_state_dict(state, strict=False)
        teacher.hand_rope(made.applications())
        return made

    def students(self) -> list[PhaseBlock]:
        """List what is distilled as one unit: every block."""
        return list(self)

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {"block": self.config.to_dict(), "phases": [list(p) for p in self.phases]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PhaseBlocks:
        """Blocks with random weights from :meth:`to_config`'s dictionary."""
        return cls(BlockConfig.from_dict(config["block"]), [Phase(*p) for p in config["phases"]])


class Surrogate(Backbone):
    """A ViT whose L layers are produced by k tied blocks (Raptor).

    Parameters
    ----------
    shell
        The teacher's embedding, final norm and head, which the surrogate reuses frozen.
    blocks
        One block for each phase, in order of depth, from layer 0 to L.
    """

    kind: ClassVar[str] = "surrogate"

    def __init__(self, shell: ViTStem, blocks: PhaseBlocks) -> None:
        self.boundaries = boundaries_of(blocks.phases)
        super().__init__(shell, blocks.phases[-1].end)
        freeze(self.shell)
        self.blocks = blocks

    @classmethod
    def of_teacher(cls, teacher: Teacher, blocks: PhaseBlocks) -> Surrogate:
        """Surrogate that shares the teacher's shell, which is frozen from then on.

        Raises
        ------
        ConfigError
            If the blocks do not cover the teacher's layers or have another width.
        """
        if blocks.phases[-1].end != teacher.num_layers or blocks.config.width != teacher.width:
            shown = f"width {blocks.config.width}, end {blocks.phases[-1].end}"
            expected = f"blocks of width {teacher.width} that end at the teacher's {teacher.num_layers} layers"
            raise ConfigError.of("blocks", shown, expected, "choose those of this teacher")
        shape = (blocks.config.rope and blocks.config.rope.tokens, blocks.config.relative_bias)
        if shape != (blocks.config.rope and teacher.layout.num_tokens, blocks.config.relative_bias and teacher.grid):
            expected = f"blocks with positions for the teacher's {teacher.layout.num_tokens} tokens (it has {shape})"
            raise ConfigError.of(
                "task.blocks", f"k={len(blocks)}", expected, "train them at the same teacher.options.img_size"
            )
        return cls(teacher.shell, blocks)

    def at_resolution_of(self, teacher: Teacher) -> Surrogate:
        """Put the blocks into the stem of their teacher as it was opened for images of another size.

        Raises
        ------
        ConfigError
            If that teacher's stem differs in anything but the positions.
        """
        ours, theirs = (
            {name: t for name, t in shell.state_dict().items() if not name.endswith(POSITIONS)}
            for shell in (self.shell, teacher.shell)
        )
        same = ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())
        if not same or (self.spec.mean, self.spec.std) != (teacher.spec.mean, teacher.spec.std):
            expected = f"the embedding, norm and head of the surrogate, which takes images of {self.input_shape}"
            fix = "choose the teacher that it was made of, with the same teacher.weights and teacher.head"
            raise ConfigError.of("teacher", f"{teacher.spec.name} of {teacher.input_shape}", expected, fix)
        return Surrogate.of_teacher(teacher, self.blocks.at_grid_of(teacher)).eval()

    @property
    def k(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def exits(self) -> list[int]:
        """Last layers of the phases: where to leave early, as ``model(images, layer=model.exits[0])``."""
        return [phase.end for phase in self.blocks.phases]

    @property
    def phase(self) -> Phase:
        """All of depth, as one phase."""
        return Phase(0, self.num_layers)

    @property
    def name(self) -> str:
        """All of depth, such as ``0-12``."""
        return str(self.phase)

    def students(self) -> list[Surrogate]:
        """List what is distilled as one unit: the whole."""
        return [self]

    def teacher_forced(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Layers 1..L, each from the teacher's layer before it; see :meth:`PhaseBlock.teacher_forced`."""
        return tuple(x for b in self.blocks for x in b.teacher_forced(inputs[b.phase.start : b.phase.end]))

    def block_of(self, layer: int) -> int:
        """Return the number of the block that produces a layer."""
        return next(i for i, block in enumerate(self.blocks) if layer <= block.phase.end)

    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end; see :meth:`Backbone.layers`."""
        stop = self.check_range(start, end)
        for block in self.blocks:
            first, last = max(start, block.phase.start), min(stop, block.phase.end)
            if first < last:
                for x_BND in block.steps(x_BND, first, last):  # noqa: B020 (each layer feeds the next)
                    yield x_BND

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {
            "vit": spec_to_dict(self.spec),
            "block": self.blocks.config.to_dict(),
            "boundaries": self.boundaries,
            "num_layers": self.num_layers,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Surrogate:
        """Surrogate with random weights from :meth:`to_config`'s dictionary."""
        blocks = PhaseBlocks(
            BlockConfig.from_dict(config["block"]), phases_of(config["boundaries"], config["num_layers"])
        )
        return cls(ViTStem(spec_from_dict(config["vit"])), blocks)
