import itertools
import math

import numpy as np
import pytest

from diffusers_imagen.evaluation.intervals import (
    Estimate,
    bootstrap,
    clustered_rate,
    independent_difference,
    paired_difference,
    ratio,
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


def covers(make_interval, truth: float, trials: int = 600) -> float:
    rng = np.random.default_rng(0)
    intervals = [make_interval(rng) for _ in range(trials)]
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def test_trials_of_a_cluster_that_never_differ_count_once() -> None:
    hits = [True] * 70 + [False] * 30
    doubled = clustered_rate(hits * 2, [*range(100)] * 2)
    once = wilson_rate(70, 100)
    assert (doubled.hits, doubled.trials) == (140, 200)
    assert (doubled.low, doubled.high) == pytest.approx((once.low, once.high), abs=1e-3)
    # Where all are hits, nothing tells how alike they are.
    sure = clustered_rate([True] * 200, [*range(100)] * 2)
    assert sure.low == wilson_rate(100, 100).low
    assert math.isnan(clustered_rate([], []).value)


def test_clustered_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    def rate_of_pairs(rng, independent: bool):
        # Each scene has a rate of its own, 0.2 or 0.9; or all have their mean.
        own = np.full(100, 0.55) if independent else rng.choice([0.2, 0.9], size=100)
        hits = rng.random((100, 2)) < own[:, None]
        return hits.ravel().tolist(), np.repeat(np.arange(100), 2).tolist()

    for independent in (False, True):
        assert 0.925 < covers(lambda rng: clustered_rate(*rate_of_pairs(rng, independent)), 0.55) < 0.98  # noqa: B023
    naive = covers(lambda rng: wilson_rate(sum(rate_of_pairs(rng, False)[0]), 200), 0.55)
    assert naive < 0.92

    def difference(rng):
        first, clusters = rate_of_pairs(rng, False)
        return paired_difference(first, [False] * 200, clusters)

    assert 0.925 < covers(difference, 0.55) < 0.98


def test_the_ratio_of_rates_covers_the_truth_about_as_often_as_it_says() -> None:
    def share(rng):
        return ratio(wilson_rate(int(rng.binomial(200, 0.6)), 200), wilson_rate(int(rng.binomial(100, 0.9)), 100))

    assert 0.93 < covers(share, 0.6 / 0.9) < 0.98


def test_a_ratio_of_sure_rates_still_has_a_width() -> None:
    share = ratio(wilson_rate(100, 100), wilson_rate(100, 100))
    assert share.value == 1
    assert share.low == pytest.approx(wilson_rate(100, 100).low, abs=0.01)
    assert share.high > 1.03
    assert math.isnan(ratio(wilson_rate(3, 4), wilson_rate(0, 4)).value)
    assert ratio(wilson_rate(0, 4), wilson_rate(3, 4)).low == 0
    with pytest.raises(ValueError, match="0 and 4 trials"):
        ratio(wilson_rate(0, 0), wilson_rate(3, 4))


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
