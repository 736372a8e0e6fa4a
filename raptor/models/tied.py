"""Depth handed to tied blocks in any way: which block produces which layer is a label for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.block import BlockConfig, Factors, RecurrentBlock
from raptor.models.hub import HubModel
from raptor.partition.phases import Phase
from raptor.utils.seeding import derive_seed


class TiedDepth(nn.Module):
    """L layers produced by k blocks; a block may come back after another one.

    With contiguous labels this is a :class:`~raptor.models.surrogate.Surrogate` without its shell.

    Parameters
    ----------
    config
        Shape and options of every block.
    labels
        Number of the block that produces each of the layers 1..L; all of 0..k-1 must occur.
    name
        What to call it in results.
    seed
        Weights of block j depend on this seed, on k and on j alone, so that blocks under different labels begin
        alike. None leaves them to the global generator.

    Raises
    ------
    ConfigError
        If the labels leave a number out.
    """

    def __init__(self, config: BlockConfig, labels: Sequence[int], name: str, seed: int | None = None) -> None:
        super().__init__()
        self.labels, self.name = list(labels), name
        k = len(set(self.labels))
        if not self.labels or set(self.labels) != set(range(k)):
            raise ConfigError.of(f"labels of {name}", self.labels, "the numbers 0..k-1, one a layer", "correct them")
        self.blocks = nn.ModuleList()
        for j in range(k):
            with torch.random.fork_rng(devices=[], enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(derive_seed(seed, "tied", k, j))
                self.blocks.append(RecurrentBlock(config))

    @property
    def phase(self) -> Phase:
        """All of depth, as one phase."""
        return Phase(0, len(self.labels))

    def applications(self) -> Iterator[tuple[RecurrentBlock, Sequence[int]]]:
        """Give each block with the layers that it produces."""
        return self._layers(*self.phase)

    def _layers(self, first: int, last: int) -> Iterator[tuple[RecurrentBlock, Sequence[int]]]:
        """Each block with those of the layers first+1..last that it produces."""
        for j, block in enumerate(self.blocks):
            layers = [layer for layer in range(first + 1, last + 1) if self.labels[layer - 1] == j]
            if layers:
                yield cast(RecurrentBlock, block), layers

    def steps(self, x_BND: Tensor, start: int | None = None, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end, each from the one before.

        Parameters
        ----------
        x_BND
            Tokens of layer ``start``, ``(B, N, D)``.
        start, end
            Layers within 0..L; None means 0 and L.

        Yields
        ------
        Tensor
            Tokens ``(B, N, D)`` of each layer.
        """
        first, last = start or 0, len(self.labels) if end is None else end
        applied: dict[int, tuple[RecurrentBlock, Factors]] = {}
        for block, layers in self._layers(first, last):
            factors = block.factors(torch.tensor(layers).to(x_BND.device, non_blocking=True))
            applied |= {layer: (block, factor) for layer, factor in zip(layers, factors, strict=True)}
        for layer in range(first + 1, last + 1):
            block, factor = applied[layer]
            x_BND = block.apply_once(x_BND, factor)
            yield x_BND

    def teacher_forced(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Layers 1..L, each from the teacher's layer before it.

        Parameters
        ----------
        inputs
            The teacher's layers 0..L-1, each ``(B, N, D)``.

        Returns
        -------
        tuple of Tensor
            Predictions, each ``(B, N, D)``.
        """
        predictions: dict[int, Tensor] = {}
        for block, layers in self._layers(*self.phase):
            preds = block.teacher_forced([inputs[layer - 1] for layer in layers], layers)
            predictions |= dict(zip(layers, preds, strict=True))
        return tuple(predictions[layer] for layer in range(1, len(self.labels) + 1))


class PartitionEnsemble(nn.ModuleList, HubModel):
    """Several ways to tie the depth of one teacher: what the small-scale study trains side by side.

    Parameters
    ----------
    config
        Shape and options of every block.
    labels
        Labels of each way, by its name.
    seed
        As in :class:`TiedDepth`; a way's weights do not depend on what is built beside it.

    Raises
    ------
    ConfigError
        If there are no labels, or they differ in their number of layers.
    """

    kind: ClassVar[str] = "tied"

    def __init__(self, config: BlockConfig, labels: Mapping[str, Sequence[int]], seed: int | None = None) -> None:
        super().__init__()
        self.config = config
        if len({len(of) for of in labels.values()}) != 1:
            raise ConfigError.of("labels", list(labels), "labels, all for the same number of layers", "correct them")
        for name, of in labels.items():
            self.append(TiedDepth(config, of, name, seed))

    def __iter__(self) -> Iterator[TiedDepth]:
        return cast(Iterator[TiedDepth], super().__iter__())

    def applications(self) -> Iterator[tuple[RecurrentBlock, Sequence[int]]]:
        """Give each block with the layers that it produces."""
        for student in self:
            yield from student.applications()

    def students(self) -> list[TiedDepth]:
        """List what is distilled as one unit: every way."""
        return list(self)

    @property
    def labels(self) -> dict[str, list[int]]:
        """Labels of each way, by its name."""
        return {student.name: student.labels for student in self}

    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which :meth:`from_config` builds the same architecture."""
        return {"block": self.config.to_dict(), "labels": [[name, of] for name, of in self.labels.items()]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PartitionEnsemble:
        """Blocks with random weights from :meth:`to_config`'s dictionary."""
        return cls(BlockConfig.from_dict(config["block"]), dict(config["labels"]))
