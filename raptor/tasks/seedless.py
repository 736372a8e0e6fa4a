"""Probes without a seed, a schedule or a learning rate: what a trained head is checked against."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from raptor.data.module import HELD_OUT

NEIGHBOURS, TEMPERATURE = 20, 0.07  # as is usual for self-supervised ViTs since DINO
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)


def knn_top1(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> float:
    """Accuracy of a vote of the nearest training features by cosine, weighted by exp(cosine / temperature).

    Parameters
    ----------
    train, val
        Features ``(n, F)`` and labels ``(n,)``.
    """
    neighbours = min(NEIGHBOURS, len(train[1]))
    classifier = KNeighborsClassifier(
        neighbours, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
    )
    return float(classifier.fit(*_arrays(train)).score(*_arrays(val)))


def ridge_top1(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> float:
    """Accuracy of ridge regression on the class indicators, solved in closed form.

    The penalty is the best of :data:`PENALTIES` on a fixed tenth of the training features; the solution is
    then that of all of them.

    Parameters
    ----------
    train, val
        Features ``(n, F)``, which are standardised, and labels ``(n,)``.
    """
    x, y = _arrays(train)
    order = np.random.default_rng(0).permutation(len(y))
    held, rest = np.split(order, [max(1, round(HELD_OUT * len(y)))])

    def fit(penalty: float, rows: np.ndarray) -> RidgeClassifier:
        return make_pipeline(StandardScaler(), RidgeClassifier(penalty, solver="cholesky")).fit(x[rows], y[rows])

    best = max(PENALTIES, key=lambda penalty: fit(penalty, rest).score(x[held], y[held]))
    return float(fit(best, order).score(*_arrays(val)))


CHECKS = {"knn": knn_top1, "ridge": ridge_top1}


def _arrays(pair: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return pair[0].numpy(), pair[1].numpy()
