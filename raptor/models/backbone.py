"""The one protocol that teacher and surrogate keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raptor.errors import ConfigError
from raptor.models.hub import HubModel
from raptor.models.tokens import TokenLayout
from raptor.models.vit import ViTSpec, ViTStem


class Backbone(nn.Module, HubModel, ABC):
    """Images in, tokens out: the protocol of teacher and surrogate.

    Parameters
    ----------
    shell
        Embedding, final norm and head.
    num_layers
        Number of layers L.
    """

    def __init__(self, shell: ViTStem, num_layers: int) -> None:
        super().__init__()
        self.shell = shell
        self.num_layers = num_layers

    @property
    def layout(self) -> TokenLayout:
        """Order of the tokens."""
        return self.shell.layout

    @property
    def spec(self) -> ViTSpec:
        """Architecture of the ViT that this is, or stands for."""
        return self.shell.spec

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return int(self.shell.vit.embed_dim)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier head, 0 if there is none."""
        return self.spec.linear_head or int(self.shell.vit.num_classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input image."""
        height, width = self.shell.vit.patch_embed.img_size
        return int(self.shell.vit.in_chans), int(height), int(width)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """Layer 0 of normalised images: ``(B, C, H, W)`` to ``(B, N, D)``."""
        return self.shell.embed(images_BCHW)

    @abstractmethod
    def steps(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Iterator[Tensor]:
        """Layers start+1..end one after the other; as :meth:`layers`, without keeping them all."""

    def layers(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Layers start+1..end from the tokens of layer ``start``.

        Parameters
        ----------
        x_BND
            Tokens of layer ``start``, ``(B, N, D)``, before the final norm.
        start, end
            Layer indices with 0 <= start <= end <= L; ``end`` None means L.

        Returns
        -------
        Tensor
            ``(B, end - start, N, D)``.

        Raises
        ------
        ConfigError
            If the range does not fit.
        """
        outputs = list(self.steps(x_BND, start, end))
        return torch.stack(outputs, dim=1) if outputs else x_BND.new_empty((len(x_BND), 0, *x_BND.shape[1:]))

    def rollout(self, x_BND: Tensor) -> Tensor:
        """All layers 1..L from layer 0: ``(B, N, D)`` to ``(B, L, N, D)``."""
        return self.layers(x_BND)

    def norm(self, x_BND: Tensor) -> Tensor:
        """Apply the final norm to the tokens of layer L."""
        return self.shell.norm(x_BND)

    def head(self, x_BND: Tensor) -> Tensor:
        """Logits from the tokens of layer L, before the final norm."""
        return self.shell.head(x_BND)

    def run_to(self, x_BND: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Tokens of layer ``end`` (None: L) from those of layer ``start``, before the final norm."""
        last = x_BND
        for last in self.steps(x_BND, start, end):  # noqa: B007 (only the last one counts)
            pass
        return last

    def forward_features(self, images_BCHW: Tensor) -> Tensor:
        """As calling the model; timm's name for it."""
        return self(images_BCHW)

    def get_intermediate_layers(
        self,
        images_BCHW: Tensor,
        n: int | Sequence[int] = 1,
        *,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Tensor] | list[tuple[Tensor, Tensor]]:
        """Compute the outputs of chosen blocks, with the arguments of timm's method of this name.

        Parameters
        ----------
        images_BCHW
            Normalised images.
        n
            The last n blocks, or indices of blocks, negative from the end. Block i gives layer i + 1.
        reshape
            Whether to give maps ``(B, D, rows, columns)`` instead of patches ``(B, N, D)``.
        return_prefix_tokens
            Whether to give pairs of patches and ``(B, cls + registers, D)``, where the model has such tokens.
        norm
            Whether to apply the final norm.

        Returns
        -------
        list
            One entry for each block, in order of depth; layers deeper than the last one chosen are not run.

        Raises
        ------
        ConfigError
            If a block does not exist.
        """
        L, layout = self.num_layers, self.layout
        blocks = range(L - n, L) if isinstance(n, int) else [i + L if i < 0 else i for i in n]
        if not blocks or not all(0 <= i < L for i in blocks):
            raise ConfigError.of("n", n, f"blocks that exist, 0..{L - 1}", "choose among them")
        prefix, chosen = layout.cls + layout.registers, []
        for i, x in enumerate(self.steps(self.embed(images_BCHW), 0, max(blocks) + 1)):
            if i in blocks:
                x = self.norm(x) if norm else x
                patches = layout.select(x, "patches")
                if reshape:
                    patches = patches.transpose(1, 2).unflatten(2, self.grid)
                chosen.append((patches, x[:, :prefix]) if return_prefix_tokens and prefix else patches)
        return chosen  # type: ignore[return-value]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.shell.vit.patch_embed.grid_size
        return int(rows), int(columns)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each layer 1..L, as timm describes features: module, channels and pixels per patch."""
        reduction = int(self.shell.vit.patch_embed.patch_size[0])
        return [
            {"module": f"blocks.{self.block_of(layer)}", "num_chs": self.width, "reduction": reduction}
            for layer in range(1, self.num_layers + 1)
        ]

    @abstractmethod
    def block_of(self, layer: int) -> int:
        """Return the number of the block that produces a layer."""

    def forward(self, images_BCHW: Tensor, layer: int | None = None) -> Tensor:
        """Tokens ``(B, N, D)`` of normalised images after the final norm: of the last layer, or of any other."""
        return self.norm(self.run_to(self.embed(images_BCHW), end=layer))

    def classify(self, images_BCHW: Tensor, layer: int | None = None) -> Tensor:
        """Logits ``(B, classes)`` of normalised images: of the last layer, or of any other; no deeper one is run."""
        return self.head(self.run_to(self.embed(images_BCHW), end=layer))

    def check_range(self, start: int, end: int | None) -> int:
        """Check a range of layers, and return its last one.

        Raises
        ------
        ConfigError
            If not 0 <= start <= end <= L.
        """
        stop = self.num_layers if end is None else end
        if not 0 <= start <= stop <= self.num_layers:
            raise ConfigError.of(
                "layers", f"{start}..{stop}", f"a range within 0..{self.num_layers}", "choose such layers"
            )
        return stop

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Plain dictionary from which ``from_config`` builds the same architecture."""
