import pytest
from curves import slope
from results import Measurement, Row


def test_each_round_has_its_own_slope():
    points = [Measurement("fast", str(x), "bf16", [2.0 * x, 3.0 * x**2, 5.0]) for x in (1, 4, 16)]
    found = slope(Row("growth_batch", "growth with batch", "s", True, points))
    assert (found.median, found.low, found.high) == (pytest.approx(1), pytest.approx(0), pytest.approx(2))
