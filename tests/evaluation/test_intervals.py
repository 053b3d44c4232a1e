import itertools
import math

import numpy as np
import pytest

from diffusers_imagen.evaluation.intervals import (
    Estimate,
    bootstrap,
    independent_difference,
    paired_difference,
    wilson_rate,
)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0), (8, 10, 0.4902, 0.9433)],
)
def test_the_wilson_interval_is_the_published_one(hits: int, trials: int, low: float, high: float) -> None:
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    rate = wilson_rate(hits, trials)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=6e-5)
    assert rate.value == hits / trials


def test_a_rate_without_trials_is_no_number() -> None:
    rate = wilson_rate(0, 0)
    assert all(math.isnan(value) for value in (rate.value, rate.low, rate.high))


def test_more_hits_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="`hits` is 3 of 2"):
        wilson_rate(3, 2)


def test_the_difference_of_independent_rates_has_the_published_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, contrast (a), method 10.
    difference = independent_difference(wilson_rate(56, 70), wilson_rate(48, 80))
    assert difference.value == pytest.approx(0.2)
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=6e-5)


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    n, only_first, only_second = 30, 0.2, 0.1
    covered = 0.0
    for a, b in itertools.product(range(n + 1), repeat=2):
        if a + b > n:
            continue
        first = [True] * a + [False] * (n - a)
        second = [False] * a + [True] * b + [False] * (n - a - b)
        interval = paired_difference(first, second)
        chance = math.comb(n, a) * math.comb(n - a, b) * only_first**a * only_second**b * 0.7 ** (n - a - b)
        covered += chance * (interval.low <= only_first - only_second <= interval.high)
    assert 0.94 < covered < 0.97


def test_pairs_that_never_differ_still_leave_a_doubt() -> None:
    difference = paired_difference([True] * 50, [True] * 50)
    assert difference.value == 0
    assert difference.low < 0 < difference.high
    assert difference.high == pytest.approx(-difference.low)


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="`first` and `second` have 1 and 2 units"):
        paired_difference([True], [True, False])


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.02, 0.02, "yes"), (-0.02, 0.04, "undecided"), (0.04, 0.09, "no"), (-0.2, -0.03, "no")],
)
def test_within_means_that_the_whole_interval_lies_inside(low: float, high: float, answer: str) -> None:
    assert Estimate((low + high) / 2, low, high, 10).within(0.03) == answer


def test_the_bootstrap_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    estimate = bootstrap(lambda drawn: float(drawn.mean()), [values])
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_bootstrap_draws_columns_together() -> None:
    values = [0.0, 1.0, 2.0, 3.0]
    estimate = bootstrap(lambda a, b: float((a - b).mean()), [values, values])
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)
