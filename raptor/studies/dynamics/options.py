"""Options of ``python -m raptor.dynamics``, checked before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from raptor.errors import ConfigError, from_node
from raptor.models.backbone import Backbone
from raptor.partition.phases import check_boundaries, check_k


@dataclass(frozen=True)
class Operators:
    """``operators``: dynamic mode decomposition by phase.

    Parameters
    ----------
    rank
        Dimensions of the subspace.
    tokens
        Token types; each takes memory for 2 (2L + 1) matrices of D x D.
    """

    rank: int = 64
    tokens: Sequence[str] = ("cls", "patches")


@dataclass(frozen=True)
class Perturbation:
    """``perturbation``: kicks.

    Parameters
    ----------
    images
        How many images; 0 for none.
    sizes
        Sizes of a kick as shares of a token's norm.
    layers
        Layers to kick; None takes four, from the first to three quarters of depth.
    """

    images: int = 16
    sizes: Sequence[float] = (0.01, 0.1, 0.5)
    layers: Sequence[int] | None = None


@dataclass(frozen=True)
class Jacobian:
    """``jacobian``: its spectrum at the last step of each phase.

    Parameters
    ----------
    images
        How many images; 0 for none.
    values
        How many singular values and eigenvalues.
    """

    images: int = 2
    values: int = 4


@dataclass(frozen=True)
class DynamicsOptions:
    """What ``configs/dynamics.yaml`` sets for the measures.

    Parameters
    ----------
    k, boundaries
        Phases to draw and to fit operators for: k by max-cut of the teacher's own distance, or given boundaries.
    tokens
        Token types of that distance.
    shown
        Images whose trajectories are kept for projections.
    ranks
        Whether to decompose the updates of every image, the dearest of the curves.
    operators, perturbation, jacobian
        Options of these measures.
    precision
        Bits of the networks' numbers, 32 or 64; measures are always taken in 64.
    seed
        Of kicks and of the vectors that iterations begin with.
    """

    k: int = 3
    boundaries: Sequence[int] | None = None
    tokens: Sequence[str] = ("cls", "patches")
    shown: int = 100
    ranks: bool = True
    precision: int = 32
    operators: Operators = field(default_factory=Operators)
    perturbation: Perturbation = field(default_factory=Perturbation)
    jacobian: Jacobian = field(default_factory=Jacobian)
    seed: int = 0

    @classmethod
    def of(cls, config: Any) -> DynamicsOptions:
        """From the composed configuration as plain data, of which it takes its own keys.

        Raises
        ------
        ConfigError
            Naming a key that a group does not know.
        """
        kinds = {"operators": Operators, "perturbation": Perturbation, "jacobian": Jacobian}
        own = {key: config[key] for key in ("k", "boundaries", "tokens", "shown", "ranks", "precision", "seed")}
        return cls(**own, **{key: from_node(kind, config[key], key) for key, kind in kinds.items()})

    def check(self, model: Backbone) -> None:
        """Check against a network, before anything is run.

        Raises
        ------
        ConfigError
            Naming the key that does not fit.
        """
        L, kick_layers = model.num_layers, self.perturbation.layers
        if self.precision not in (32, 64):
            raise ConfigError(f"precision={self.precision} must be 32 or 64")
        if self.boundaries is None:
            check_k(self.k, L, "k")
        else:
            check_boundaries(list(self.boundaries), L, "boundaries")
        model.layout.require(self.tokens, "tokens")
        model.layout.require(self.operators.tokens, "operators.tokens")
        for key, value, least in (
            ("shown", self.shown, 3),
            ("operators.rank", self.operators.rank, 1),
            ("perturbation.images", self.perturbation.images, 0),
            ("jacobian.images", self.jacobian.images, 0),
            ("jacobian.values", self.jacobian.values, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{key}={value} must be a whole number, {least} or more")
        if any(not size > 0 for size in self.perturbation.sizes):
            raise ConfigError(f"perturbation.sizes={list(self.perturbation.sizes)} are shares of a norm, above 0")
        if kick_layers is not None and not all(0 <= layer < L for layer in kick_layers):
            raise ConfigError(
                f"perturbation.layers={list(kick_layers)} must lie within 0..{L - 1}: the last layer has none after it"
            )
