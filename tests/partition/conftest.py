import numpy as np
import pytest

# distances that the paper's authors published for DINOv2 ViT-B/14 with registers, upper triangle
PUBLISHED = """
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


@pytest.fixture
def published() -> np.ndarray:
    D = np.zeros((12, 12))
    for row, line in enumerate(PUBLISHED.split("\n")[1:-1]):
        D[row, row + 1 :] = [float(value) for value in line.split()]
    return D + D.T
