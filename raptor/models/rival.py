"""Rivals of a surrogate: blocks in sequence, each of which stands for a stretch of a teacher's layers.

Shapes: B images, N tokens, D width, L layers of the teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.backbone import Backbone
from raptor.models.block import BlockConfig, RecurrentBlock
from raptor.models.families import block_inputs
from raptor.models.surrogate import PhaseBlocks
from raptor.models.teacher import Teacher, freeze
from raptor.models.vit import ViTStem, spec_from_dict, spec_to_dict
from raptor.partition.phases import Phase, boundaries_of, phases_of

OPERATIONS = ("block", "teacher", "linear")


class Stretch(NamedTuple):
    """A stretch of layers that one operation on the tokens of its start stands for.

    Attributes
    ----------
    start, end
        The operation takes tokens of layer ``start`` and gives those of layer ``end``. Layers between are interpolated.
    operation
        ``"block"``: a block of the rival, applied once; ``"linear"``: one linear map that is added to the tokens;
        ``"teacher"``: blocks of the teacher, one after the other.
    layers
        Layers that the teacher's blocks make in the teacher; none holds the tokens as they are.
    is_trained
        Whether its weights are trained.
    """

    start: int
    end: int
    operation: str
    layers: tuple[int, ...] = ()
    is_trained: bool = False


class Rival(Backbone):
    """A ViT in the place of a surrogate, whose depth is produced by other means than tied blocks.

    Parameters
    ----------
    shell
        The teacher's embedding, final norm and head, frozen.
    label
        What it is called in tables.
    phases
        The phases of the surrogate that it is compared with.
    stretches
        How depth is produced, from layer 0 to L.
    blocks
        One module for each stretch: a :class:`~raptor.models.block.RecurrentBlock`, a linear map, or a list of blocks.
    matched
        Layers that its training compares with the teacher's.

    Raises
    ------
    ConfigError
        If the stretches leave a layer out, or an operation is unknown.
    """

    kind: ClassVar[str] = "rival"

    def __init__(
        self,
        shell: ViTStem,
        label: str,
        phases: Sequence[Phase],
        stretches: Sequence[Stretch],
        blocks: Sequence[nn.Module],
        matched: Sequence[int],
    ) -> None:
        super().__init__(shell, stretches[-1].end)
        freeze(self.shell)
        check_stretches(stretches, self.num_layers)
        self.label, self.phases, self.stretches, self.matched = label, list(phases), list(stretches), list(matched)
        self.blocks = nn.ModuleList(blocks)
        for stretch, block in zip(self.stretches, self.blocks, strict=True):
            block.requires_grad_(stretch.is_trained)
        self.train(self.training)

    @classmethod
    def of_teacher(
        cls,
        teacher: Teacher,
        label: str,
        phases: Sequence[Phase],
        stretches: Sequence[Stretch],
        made: Mapping[int, nn.Module] | None = None,
        matched: Sequence[int] | None = None,
    ) -> Rival:
        """Make a rival of a teacher, whose blocks it shares where they are not trained, and else copies.

        Parameters
        ----------
        teacher
            The teacher; its stem is frozen from then on.
        label, phases, stretches
            As for the class.
        made
            Modules of the stretches that are no blocks of the teacher, by number of the stretch.
        matched
            Layers that training compares; None takes the ends of the stretches.
        """
        blocks = []
        for i, stretch in enumerate(stretches):
            own = [teacher.blocks[layer - 1] for layer in stretch.layers]
            kept = nn.ModuleList(copy.deepcopy(own) if stretch.is_trained else own)
            blocks.append(kept if stretch.operation == "teacher" else (made or {})[i])
        ends = [stretch.end for stretch in stretches]
        return cls(teacher.shell, label, phases, stretches, blocks, ends if matched is None else matched)

    @property
    def k(self) -> int:
        """Number of tied blocks of the surrogate that it is compared with."""
        return len(self.phases)

    @property
    def boundaries(self) -> list[int]:
        """Boundaries of the phases of that surrogate."""
        return boundaries_of(self.phases)

    @property
    def phase(self) -> Phase:
        """All of depth, as one phase."""
        return Phase(0, self.num_layers)

    @property
    def name(self) -> str:
        """All of depth, such as ``0-12``."""
        return str(self.phase)

    def train(self, mode: bool = True) -> Rival:  # noqa: FBT001, FBT002 (torch's signature)
        """Set the mode of all but blocks of the teacher: those stay without stochastic depth and dropout."""
        super().train(mode)
        for stretch, block in zip(self.stretches, self.blocks, strict=True):
            if stretch.operation == "teacher":
                block.eval()
        return self

    def students(self) -> list[Rival]:
        """Return what rolls out by itself: the whole."""
        return [self]

    def applied(self) -> Iterator[nn.Module]:
        """Give the module of each application, in order of depth."""
        for stretch, block in zip(self.stretches, self.blocks, strict=True):
            yield from cast(nn.ModuleList, block) if stretch.operation == "teacher" else [block]

    def block_of(self, layer: int) -> int:
        """Return the number of the stretch in which a layer lies."""
        return next(i for i, stretch in enumerate(self.stretches) if layer <= stretch.end)

    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Give the layers start+1..end; see :meth:`Backbone.layers`.

        Where ``start`` lies within a stretch, the operation of the whole stretch is applied to its tokens.
        """
        stop, inputs = self.check_range(start, end), block_inputs(self.shell.vit)
        for i, stretch in enumerate(self.stretches):
            first, last = max(start, stretch.start), min(stop, stretch.end)
            if first >= last:
                continue
            done = self._operate(i, x_BND, inputs)
            for layer in range(first + 1, last + 1):
                share = (layer - first) / (stretch.end - first)
                yield done if layer == stretch.end else torch.lerp(x_BND, done, share)
            x_BND = done

    def _operate(self, i: int, x_BND: Tensor, inputs: Callable[[int], dict[str, Tensor]]) -> Tensor:
        """Apply the operation of a stretch to tokens of its start."""
        stretch, block = self.stretches[i], self.blocks[i]
        if isinstance(block, RecurrentBlock):
            return block.apply_once(x_BND, block.factors(torch.tensor([stretch.end], device=x_BND.device))[0])
        if isinstance(block, nn.ModuleList):
            for layer, part in zip(stretch.layers, block, strict=True):
                x_BND = part(x_BND, **inputs(layer))
            return x_BND
        return x_BND + block(x_BND)

    def teacher_forced(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Produce the layers 1..L, those of each stretch from the teacher's layer at its start.

        Parameters
        ----------
        inputs
            The teacher's layers 0..L-1, each ``(B, N, D)``.
        """
        return tuple(x for s in self.stretches for x in self.steps(inputs[s.start], s.start, s.end))

    def to_config(self) -> dict[str, Any]:
        """Return the plain dictionary from which :meth:`from_config` builds the same architecture."""
        own = next((block.config for block in self.blocks if isinstance(block, RecurrentBlock)), None)
        return {
            "vit": spec_to_dict(self.spec),
            "label": self.label,
            "boundaries": self.boundaries,
            "num_layers": self.num_layers,
            "stretches": [[*stretch[:3], list(stretch.layers), stretch.is_trained] for stretch in self.stretches],
            "block": None if own is None else own.to_dict(),
            "matched": self.matched,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Rival:
        """Build a rival with random weights from :meth:`to_config`'s dictionary."""
        spec = spec_from_dict(config["vit"])
        stretches = [Stretch(a, b, what, tuple(of), trained) for a, b, what, of, trained in config["stretches"]]
        phases = phases_of(config["boundaries"], config["num_layers"])
        teacher = Teacher(spec)
        made: dict[int, nn.Module] = {}
        for i, stretch in enumerate(stretches):
            if stretch.operation == "linear":
                made[i] = nn.Linear(teacher.width, teacher.width)
        if config["block"] is not None:
            made |= new_blocks(stretches, BlockConfig.from_dict(config["block"]))
        return cls.of_teacher(teacher, config["label"], phases, stretches, made, config["matched"])


def new_blocks(stretches: Sequence[Stretch], config: BlockConfig, seed: int | None = None) -> dict[int, nn.Module]:
    """Make the blocks of the stretches that have one, by number of the stretch; weights as those of a surrogate."""
    own = {i: Phase(s.start, s.end) for i, s in enumerate(stretches) if s.operation == "block"}
    blocks = PhaseBlocks(config, list(own.values()), seed)
    return {i: blocks.of(phase).block for i, phase in own.items()}


def check_stretches(stretches: Sequence[Stretch], num_layers: int) -> None:
    """Check that stretches produce all layers in order.

    Raises
    ------
    ConfigError
        If they leave a layer out, or an operation is unknown.
    """
    edges = [stretches[0].start, *(stretch.end for stretch in stretches)]
    joined = all(a.end == b.start for a, b in pairwise(stretches))
    if edges[0] != 0 or edges[-1] != num_layers or edges != sorted(set(edges)) or not joined:
        shown = [f"{stretch.start}-{stretch.end}" for stretch in stretches]
        raise ConfigError.of("stretches", shown, "stretches from layer 0 on without gap or overlap", "correct them")
    unknown = [stretch.operation for stretch in stretches if stretch.operation not in OPERATIONS]
    if unknown:
        raise ConfigError.of("stretches", unknown[0], " or ".join(OPERATIONS), "correct the operation")


def kept_blocks(kept: Sequence[int], num_layers: int, healed: str = "none") -> list[Stretch]:
    """Produce depth by some of the teacher's blocks.

    A block that follows removed ones takes the tokens of the last block before them, and its output stands for the
    layer that it makes in the teacher. After the last block tokens are held; where it is trained, its output stands for
    layer L.

    Parameters
    ----------
    kept
        Layers whose blocks are kept, in order of depth, counted from 1.
    num_layers
        Layers L of the teacher.
    healed
        What is trained: ``"none"``, the ``"last"`` block or ``"all"``.
    """
    found, start = [], 0
    for layer in kept:
        is_last = layer == kept[-1]
        end = num_layers if is_last and healed != "none" else layer
        found.append(Stretch(start, end, "teacher", (layer,), healed == "all" or (healed == "last" and is_last)))
        start = end
    return found if start == num_layers else [*found, Stretch(start, num_layers, "teacher")]
