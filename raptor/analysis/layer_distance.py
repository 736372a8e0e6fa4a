"""Measure the distance between the layers of a network by one of four measures, streamed over batches.

Legend of shapes: B images, L layers, N tokens, D channels, G groups of images, W images of a minibatch.

For each image and token type the tokens of the type are averaged (the class token is itself), which gives one vector
``v_l`` for each layer. Token types are averaged over last.

=========  =====================================================================================================
measure    distance of the layers l and m
=========  =====================================================================================================
cosine     1 - cos(v_l, v_m), mean over images: the paper's
centred    1 - corr(V_l, V_m): cosine over all images together, after the mean over images is taken off each V
mse        mean over images and channels of (v_l - v_m)^2, as in the official notebook
cka        1 - linear CKA over images, from unbiased HSIC of minibatches of 32 images (Nguyen et al. 2021); images
           beyond the last whole minibatch are left out, unless there is none
=========  =====================================================================================================

All sums are kept for each of 128 groups of images apart, so that a bootstrap over images needs no second pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raptor.analysis.measures import MEASURES
from raptor.errors import ConfigError

if TYPE_CHECKING:
    from raptor.models.tokens import TokenLayout

DEFAULT_TYPES = ("cls", "patches")
GROUPS = 128
MINIBATCH = 32  # images of one estimate of HSIC
LEAST_MINIBATCH = 4  # below, unbiased HSIC does not exist
LEAST_GROUPS = 10  # below, a bootstrap over groups says nothing


class LayerDistance:
    """Distance between the layers of a network, streamed over batches.

    The default types are those of the official notebook: class token and mean patch, registers left out.

    Parameters
    ----------
    layout
        Token layout of the activations.
    types
        Token types to average over; ``"auto"`` takes those of the default types that the layout has.
    measure
        One of :data:`raptor.analysis.measures.MEASURES`.

    Raises
    ------
    ConfigError
        If the layout lacks one of the types, or the measure is unknown.
    """

    def __init__(
        self, layout: TokenLayout, types: Sequence[str] | str = DEFAULT_TYPES, measure: str = "cosine"
    ) -> None:
        if measure not in MEASURES:
            raise ConfigError.of("distance", measure, " or ".join(MEASURES), "choose one of them")
        self.layout, self.measure = layout, measure
        self.types = token_types(layout, types)
        self.images = 0
        self._sums = [_SUMS[measure]() for _ in self.types]

    def update(self, layers: Tensor | Iterable[Tensor]) -> None:
        """Add a batch.

        Parameters
        ----------
        layers
            Activations of the layers 1..L: ``(B, L, N, D)``, or one ``(B, N, D)`` after the other, of which none is
            kept.
        """
        parts: list[list[Tensor]] = [[] for _ in self.types]
        for x_BND in layers.unbind(1) if isinstance(layers, Tensor) else layers:
            for kind, vectors in zip(self.types, parts, strict=True):
                vectors.append(self.layout.pool(x_BND, kind).double())
        for sums, vectors in zip(self._sums, parts, strict=True):
            sums.update(torch.stack(vectors, dim=1), self.images)
        self.images += len(parts[0][0])

    def compute(self) -> NDArray[np.floating]:
        """Compute the distance matrix ``(L, L)``: symmetric, zero diagonal, not negative.

        Raises
        ------
        ValueError
            If no batch was added, or with ``cka`` fewer than four images.
        """
        return self._distance(None)

    def resample(self, draws: int, seed: int = 0) -> Iterator[NDArray[np.floating]]:
        """Draw distance matrices over groups of images chosen with replacement: a bootstrap over images.

        Groups are even samples of the stream of images; the bootstrap takes images to be independent draws.

        Parameters
        ----------
        draws
            Number of matrices; none where there are fewer than ten groups.
        seed
            Seed of the draws.
        """
        groups = max((sums.groups for sums in self._sums), default=0)
        rng = np.random.default_rng([seed, 2])
        for _ in range(draws if groups >= LEAST_GROUPS else 0):
            yield self._distance(torch.tensor(rng.multinomial(groups, np.full(groups, 1 / groups))).double())

    def _distance(self, weights_G: Tensor | None) -> NDArray[np.floating]:
        if self.images == 0:
            raise ConfigError.of("images", 0, "activations of one image or more", "call add() first")
        D_LL = torch.stack([sums.distance(weights_G).cpu() for sums in self._sums]).mean(0)
        D_LL = ((D_LL + D_LL.T) / 2).clamp_(min=0).fill_diagonal_(0)
        return D_LL.numpy()


def token_types(layout: TokenLayout, types: Sequence[str] | str) -> tuple[str, ...]:
    """Resolve the token types of a distance: those that the layout has; ``"auto"`` asks for class token and patches.

    Raises
    ------
    ConfigError
        If the layout has none of the types.
    """
    if types == "auto":
        return tuple(kind for kind in DEFAULT_TYPES if kind in layout.types)
    return layout.present(types, "tokens")


class _Sums(ABC):
    """Sums over images for each group of images: tensors whose first axis is the group."""

    def __init__(self) -> None:
        self.counts_G = torch.zeros(0, dtype=torch.float64)
        self._totals: dict[str, Tensor] = {}

    @abstractmethod
    def update(self, v_BLD: Tensor, first: int) -> None:
        """Add vectors of a batch whose first image has this number in the stream."""

    @abstractmethod
    def distance(self, weights_G: Tensor | None) -> Tensor:
        """Distance matrix ``(L, L)`` with the groups weighted."""

    @property
    def groups(self) -> int:
        """Number of groups that hold anything."""
        return int((self.counts_G > 0).sum())

    def add(self, groups_B: Tensor, **values: Tensor) -> None:
        """Add values, ``(B, ...)``, to their groups; one product for all groups, so that the order of sums is fixed."""
        member_GB = F.one_hot(groups_B, GROUPS).T.double()
        values = {"count": torch.ones_like(groups_B, dtype=torch.float64), **values}
        for name, value in values.items():
            total = (member_GB @ value.reshape(len(value), -1)).view(GROUPS, *value.shape[1:])
            self._totals[name] = self._totals[name] + total if name in self._totals else total
        self.counts_G = self._totals["count"]

    def total(self, name: str, weights_G: Tensor | None) -> Tensor:
        """Sum over the groups, weighted; None weighs all alike."""
        total = self._totals[name]
        if weights_G is None:
            return total.sum(0)
        return torch.tensordot(weights_G.to(total.device), total[self.counts_G > 0], 1)


class _PerImage(_Sums):
    """Measures that are sums over single images."""

    def update(self, v_BLD: Tensor, first: int) -> None:
        groups_B = (torch.arange(len(v_BLD), device=v_BLD.device) + first) % GROUPS
        self.add(groups_B, **self.values(v_BLD))

    @abstractmethod
    def values(self, v_BLD: Tensor) -> dict[str, Tensor]:
        """Values of each image whose sums the measure needs."""


class _Cosine(_PerImage):
    def values(self, v_BLD: Tensor) -> dict[str, Tensor]:
        v_BLD = F.normalize(v_BLD, dim=-1)
        return {"gram": v_BLD @ v_BLD.mT}

    def distance(self, weights_G: Tensor | None) -> Tensor:
        return 1 - self.total("gram", weights_G) / self.total("count", weights_G)


class _Centred(_PerImage):
    def values(self, v_BLD: Tensor) -> dict[str, Tensor]:
        return {"gram": v_BLD @ v_BLD.mT, "sum": v_BLD}

    def distance(self, weights_G: Tensor | None) -> Tensor:
        n, mean_LD = self.total("count", weights_G), self.total("sum", weights_G)
        covariance_LL = self.total("gram", weights_G) - mean_LD @ mean_LD.T / n
        return 1 - _normalised(covariance_LL)


class _MSE(_PerImage):
    def values(self, v_BLD: Tensor) -> dict[str, Tensor]:
        return {
            "squares": torch.cdist(v_BLD, v_BLD, compute_mode="donot_use_mm_for_euclid_dist") ** 2 / v_BLD.shape[-1]
        }

    def distance(self, weights_G: Tensor | None) -> Tensor:
        return self.total("squares", weights_G) / self.total("count", weights_G)


class _CKA(_Sums):
    """Linear CKA: unbiased HSIC of every pair of layers, averaged over minibatches (Nguyen et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: Tensor | None = None
        self._minibatches = 0

    def update(self, v_BLD: Tensor, first: int) -> None:
        waiting = v_BLD if self._waiting is None else torch.cat([self._waiting, v_BLD])
        whole = len(waiting) - len(waiting) % MINIBATCH
        self._waiting = waiting[whole:]
        for start in range(0, whole, MINIBATCH):
            v_WLD = waiting[start : start + MINIBATCH]
            group = torch.tensor([self._minibatches % GROUPS], device=v_BLD.device)
            self.add(group, hsic=unbiased_hsic(v_WLD)[None])
            self._minibatches += 1

    def distance(self, weights_G: Tensor | None) -> Tensor:
        if self._minibatches == 0:
            if self._waiting is None or len(self._waiting) < LEAST_MINIBATCH:
                held = 0 if self._waiting is None else len(self._waiting)
                raise ConfigError.of("images", held, f"{LEAST_MINIBATCH} or more for CKA", "measure on more images")
            return 1 - _normalised(unbiased_hsic(self._waiting))
        return 1 - _normalised(self.total("hsic", weights_G))


_SUMS: dict[str, type[_Sums]] = {"cosine": _Cosine, "centred": _Centred, "mse": _MSE, "cka": _CKA}


def unbiased_hsic(v_WLD: Tensor) -> Tensor:
    """Estimate the linear HSIC of every pair of layers without bias (Song et al. 2012).

    Parameters
    ----------
    v_WLD
        Vectors of at least four images at each layer.

    Returns
    -------
    Tensor
        ``(L, L)``.
    """
    n = len(v_WLD)
    gram_LWW = torch.einsum("ald,bld->lab", v_WLD, v_WLD)
    gram_LWW = gram_LWW - torch.diag_embed(gram_LWW.diagonal(dim1=1, dim2=2))
    rows_LW = gram_LWW.sum(2)
    sums_L = rows_LW.sum(1)
    trace_LL = gram_LWW.flatten(1) @ gram_LWW.flatten(1).T
    sums_LL = torch.outer(sums_L, sums_L) / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows_LW @ rows_LW.T
    return (trace_LL + sums_LL) / (n * (n - 3))


def _normalised(products_LL: Tensor) -> Tensor:
    """Divide inner products by the lengths: ``P_lm / sqrt(P_ll P_mm)``; 0 where a length is 0 or less."""
    lengths_L = products_LL.diagonal().clamp(min=0).sqrt()
    return (products_LL / torch.outer(lengths_L, lengths_L)).nan_to_num(0.0, 0.0, 0.0)
