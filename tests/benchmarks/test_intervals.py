import math
import random
import statistics

import pytest
from intervals import extreme_ratio, log_slope, median_interval, ratios


def test_the_interval_of_six_values_is_their_range_with_its_exact_coverage():
    found = median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert found == (3.5, 1.0, 6.0, 1 - 2 / 2**6)


def test_nine_values_leave_out_the_extremes():
    # Tables of the sign test: the second smallest and second largest of nine cover with 96.1 %.
    found = median_interval([float(value) for value in range(1, 10)])
    assert found[:3] == (5.0, 2.0, 8.0)
    assert found.coverage == pytest.approx(0.9609, abs=1e-4)


def test_too_few_values_say_what_their_range_is_worth():
    assert median_interval([1.0, 2.0, 3.0]) == (2.0, 1.0, 3.0, 0.75)
    assert median_interval([7.0]) == (7.0, 7.0, 7.0, 0.0)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    generator = random.Random(0)
    draws = [[generator.expovariate(1.0) for _ in range(11)] for _ in range(2000)]
    found = [median_interval(draw) for draw in draws]
    covered = statistics.mean(one.low <= math.log(2) <= one.high for one in found)
    assert found[0].coverage >= 0.95
    assert covered == pytest.approx(found[0].coverage, abs=0.015)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="`values` is empty"):
        median_interval([])


def test_ratios_are_taken_round_by_round():
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_values_without_rounds_in_common_give_the_widest_range():
    found = extreme_ratio([10.0, 12.0], [1.0, 2.0, 4.0])
    assert found[:3] == (5.5, 2.5, 12.0)
    assert math.isnan(found.coverage)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_the_slope_of_a_power_law_is_its_exponent(power):
    x = [1.0, 2.0, 4.0, 8.0]
    assert log_slope(x, [0.3 * value**power for value in x]) == pytest.approx(power, abs=1e-12)
