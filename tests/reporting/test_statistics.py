import math

from raptor.reporting.statistics import MeanCI


def test_mean_std_and_interval_by_hand() -> None:
    spread = MeanCI.of([1.0, 2.0, 4.0])
    assert math.isclose(spread.mean, 7 / 3)
    assert math.isclose(spread.std, math.sqrt(7 / 3))
    # Student's t for 2 degrees of freedom at 0.975 is 4.302653
    assert math.isclose(spread.ci95, 4.302653 * math.sqrt(7 / 3) / math.sqrt(3), rel_tol=1e-6)


def test_shown_as_the_paper_does() -> None:
    assert MeanCI.of([0.832, 0.834, 0.830]).show(scale=100) == "83.2 ± 0.2"
    assert MeanCI.of([0.8449]).show(scale=100) == "84.5"
    assert MeanCI.of([]).show() == "—"
