"""What can be read off the layers of a frozen network, and how near it is to its teacher.

Shapes: n images, F features, E outputs of a head, N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024  # rows of a matrix of similarities at a time


def neighbour_agreement(ours_nE: Tensor, theirs_nE: Tensor, neighbours: int) -> dict[str, float]:
    """Compare the nearest neighbours of each image, by cosine, in two embeddings of the same images.

    Parameters
    ----------
    ours_nE, theirs_nE
        Embeddings; their widths may differ.
    neighbours
        Neighbours of an image that are compared, at most n - 1.

    Returns
    -------
    dict
        ``nearest``, the share of images with the same nearest neighbour; ``overlap``, the mean share of common ones
        among the ``neighbours`` nearest; ``chance``, the overlap of neighbours drawn at random.
    """
    count = min(neighbours, len(ours_nE) - 1)
    near = [_nearest(x, count) for x in (ours_nE, theirs_nE)]
    same = float((near[0][:, 0] == near[1][:, 0]).double().mean())
    common = (near[0][:, :, None] == near[1][:, None]).any(2).double().mean()
    return {"nearest": same, "overlap": float(common), "chance": count / (len(ours_nE) - 1)}


def _nearest(x_nE: Tensor, count: int) -> Tensor:
    unit = torch.nn.functional.normalize(x_nE.float(), dim=1)
    rows = []
    for first in range(0, len(unit), CHUNK):
        cosines = unit[first : first + CHUNK] @ unit.T
        own = torch.arange(len(cosines))
        cosines[own, first + own] = -torch.inf
        rows.append(cosines.topk(count, dim=1).indices)
    return torch.cat(rows)


class ColourMap:
    """The first three principal components of a teacher's patches, as the red, green and blue of a map.

    The basis and the range of colours are the teacher's, so that maps of two networks have the same colours where their
    patches are the same.

    Parameters
    ----------
    teacher_nND
        Patch tokens of one layer of the teacher.
    """

    def __init__(self, teacher_nND: Tensor) -> None:
        flat = teacher_nND.flatten(0, 1).double()
        self.mean = flat.mean(0)
        centred = flat - self.mean
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # or a component could come out mirrored
        self.axes = (axes * signs)[:3]
        scores = centred @ self.axes.T
        self.low, self.high = scores.amin(0), scores.amax(0)

    def __call__(self, x_nND: Tensor) -> Tensor:
        """Map patches ``(n, N, D)`` to colours ``(n, N, 3)`` from 0 to 1."""
        scores = (x_nND.double() - self.mean) @ self.axes.T
        return ((scores - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1)


def share_of_gap(accuracy: float, control: float, teacher: float) -> float | None:
    """Return (accuracy - control) / (teacher - control): 0 for the control, 1 for the teacher.

    None where the teacher is no better than the control, since then nothing can be shown.
    """
    return (accuracy - control) / (teacher - control) if teacher > control else None
