"""Distances between layers that the paper's authors published."""

from __future__ import annotations

import numpy as np

from raptor.partition.maxcut import Matrix

# DINOv2 ViT-B/14 with registers, 10,000 ImageNet training images, class token and mean patch; row l: l+1..12
DINOV2_VITB14_REG = """
.08 .20 .26 .32 .37 .45 .63 .70 .81 .82 1.08
.11 .16 .21 .27 .36 .54 .64 .75 .75 1.09
.05 .15 .19 .32 .56 .70 .81 .79 1.11
.09 .15 .28 .52 .67 .78 .76 1.11
.09 .20 .39 .53 .65 .69 1.07
.10 .30 .45 .58 .62 1.06
.17 .30 .45 .54 1.04
.14 .30 .45 .94
.16 .35 .86
.25 .81
.75
"""


def published_distance() -> Matrix:
    """Return the published cosine distances of DINOv2 ViT-B/14 with registers, ``(12, 12)``, to two decimals."""
    rows = [[float(value) for value in line.split()] for line in DINOV2_VITB14_REG.split("\n")[1:-1]]
    D = np.zeros((len(rows) + 1, len(rows) + 1))
    for row, values in enumerate(rows):
        D[row, row + 1 :] = values
    return D + D.T
