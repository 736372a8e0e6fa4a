"""What heat maps say beside a partition, and the colour scale that teachers share."""

import numpy as np

from raptor.partition.evidence import find_phases
from raptor.partition.published import published_distance
from raptor.reporting.heatmap import heatmap, teacher_heatmaps


def test_a_heat_map_carries_the_evidence_of_its_phases() -> None:
    distance = published_distance()
    phases = find_phases(distance, [2, 3], "greedy", resampled=[distance] * 4, draws=19)
    panels = [ax for ax in heatmap(distance, phases, "DINOv2").axes if ax.images]
    assert len(panels) == 2
    for ax, k in zip(panels, ("2", "3"), strict=True):
        null, permuted = (phases["nulls"][name][k] for name in ("toeplitz", "layers"))
        title = ax.get_title("left").splitlines()
        assert title[0] == f"k = {k}: cut after {', '.join(map(str, phases['boundaries'][k]))}"
        assert title[2].endswith(f"p = {null['contrast']['p']:.2g}")
        assert title[3].endswith(f"p = {null['share']['p']:.2g}")
        assert title[4].endswith(f"{permuted['contrast']['p']:.2g} and {permuted['share']['p']:.2g}")
        assert title[5] == f"equal sizes cut {100 * phases['equal'][k]['share']:.1f} %"
        assert title[6] == "the same in 100 % of resamples"


def test_teachers_share_one_colour_scale_and_have_their_names() -> None:
    distance = published_distance()
    phases = find_phases(distance, [3], "exact", draws=0)
    teachers = {f"vit_{i}": (distance * (1 + i), phases) for i in range(6)}
    figure = teacher_heatmaps(teachers)
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title("left").splitlines()[0] for ax in panels] == list(teachers)
    (scale,) = {ax.images[0].get_clim() for ax in panels}
    assert np.isclose(scale[1], 6 * distance.max()) and scale[0] == 0
